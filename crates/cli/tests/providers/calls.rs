//! `sandtrace watch --all --syscalls`: each VMM's calls in its own trail.

use crate::fleet::{Watch, of_type, records};
use crate::support::{config, lab};
use sandtrace_lab::{Lab, StandInForm};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const POLICY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../policies/stripe-exfil.yaml"
);

/// What was said of system calls when the trail began.
pub(crate) fn in_force(records: &[Value]) -> &Value {
    let capture = records[0]["payload"]["capture"].as_array().unwrap();
    let own = capture.iter().find(|own| own["layer"] == "syscall");
    own.unwrap()
}

#[test]
fn each_vmm_has_its_calls_in_its_own_trail() {
    let Some(lab) = lab("each_vmm_has_its_calls_in_its_own_trail") else {
        return;
    };
    let watch = Watch::start(&lab, &["--syscalls", "ebpf", "--syscall-interval", "300ms"]);
    let mut vmms = Vec::new();
    for name in ["first", "second"] {
        let id = format!("i{}{name}", lab.id());
        let config = config(&lab, StandInForm::Firecracker, &id);
        let vmm = lab.stand_in(&config).unwrap();
        watch.await_trail(&id, "sandbox_attached");
        vmm.start().unwrap();
        vmms.push((id, vmm));
    }
    for (id, _) in &vmms {
        watch.await_trail(id, "\"write\"");
    }
    std::thread::sleep(Duration::from_millis(700));
    for (_, vmm) in &mut vmms {
        vmm.kill();
    }
    for (id, vmm) in &vmms {
        let records = records(&watch.await_trail(id, "trail_end"));
        let own = in_force(&records);
        assert_eq!(own["backend"], "ebpf", "{own}");
        assert!(
            own["reason"]
                .as_str()
                .unwrap()
                .starts_with("asked for; KVM exits")
        );
        let calls = of_type(&records, "syscall_activity");
        assert!(
            calls
                .iter()
                .all(|record| record["payload"]["process"]["pid"] == vmm.pid())
        );
        let written: u64 = calls
            .iter()
            .filter_map(|record| record["payload"]["summary"]["calls"].as_array())
            .flatten()
            .filter(|call| call["name"] == "write")
            .map(|call| call["count"].as_u64().unwrap())
            .sum();
        // Its five frames, and its answers to the API.
        assert!(written >= 5, "{written}");
        assert!(of_type(&records, "capture_gap").is_empty());
    }
    watch.interrupt();
}

/// The findings of a trail, each with its sentence and verdict, in order.
pub(crate) fn findings(records: &[Value]) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let calls = of_type(records, "syscall_activity");
    let found = calls
        .iter()
        .filter(|record| record["payload"]["finding"].is_object());
    let found = found.map(|record| {
        let finding = &record["payload"]["finding"];
        (
            text(&finding["kind"]),
            text(&finding["detail"]),
            text(&record["verdict"]["result"]),
        )
    });
    found.collect()
}

/// As long as a stand-in waits to be started here, and goes on afterwards: looks
/// are a second apart before, and half a second after that.
const LOOKS: Duration = Duration::from_millis(2200);

/// Firecracker's threads get their filters when the guest is started: what is
/// watched from before is to blame only where they get none.
#[test]
fn a_vmm_is_unconfined_only_where_its_guest_runs_without_filters() {
    let Some(lab) = lab("a_vmm_is_unconfined_only_where_its_guest_runs_without_filters") else {
        return;
    };
    let calls = ["--syscalls", "ebpf", "--syscall-interval", "300ms"];
    let watch = Watch::start(&lab, &[&calls[..], &["--policy", POLICY]].concat());
    let forms = [
        (StandInForm::Firecracker, "fc_vcpu 0"),
        (StandInForm::CloudHypervisor, "vcpu0"),
    ];
    let kinds = [("never", ""), ("late", " standin.confined_ms=50")];
    let mut vmms = Vec::new();
    for (form, vcpu) in forms {
        for (name, confined) in kinds {
            let id = format!("i{}{}{name}", lab.id(), &vcpu[..2]);
            let mut config = config(&lab, form, &id);
            config.boot_args += confined;
            vmms.push((id, name, vcpu, lab.stand_in(&config).unwrap()));
        }
    }
    // One of Cloud Hypervisor has no tap, and no trail, before it is started.
    let is_watched = |vcpu: &str| vcpu != "vcpu0";
    for (id, _, vcpu, _) in &vmms {
        if is_watched(vcpu) {
            watch.await_trail(id, "sandbox_attached");
        }
    }
    std::thread::sleep(LOOKS);
    for (id, _, vcpu, vmm) in &vmms {
        if is_watched(vcpu) {
            let trail = watch.await_trail(id, "sandbox_attached");
            let trail = std::fs::read_to_string(trail).unwrap();
            assert!(!trail.contains("\"finding\":{"), "{id} was not started");
        }
        vmm.start().unwrap();
    }
    std::thread::sleep(LOOKS);
    for (id, name, vcpu, vmm) in &mut vmms {
        vmm.kill();
        let found = findings(&records(&watch.await_trail(id, "trail_end")));
        let [no_filter, may_gain] = match (*name, &found[..]) {
            ("late", _) => {
                assert_eq!(found, [], "{id}");
                continue;
            }
            (_, [first, second]) => [first, second],
            _ => panic!("{id}: {found:?}"),
        };
        assert_eq!(no_filter.0, "no_seccomp", "{id}: {found:?}");
        assert!(no_filter.1.contains(*vcpu), "{id}: {found:?}");
        assert_eq!(may_gain.0, "new_privs_possible", "{id}: {found:?}");
        assert!(found.iter().all(|(.., result)| result == "anomaly"));
    }
    watch.interrupt();
}

/// A watch of one sandbox that is killed where the test fails.
pub(crate) struct One {
    pub(crate) child: Child,
    said: PathBuf,
}

impl One {
    pub(crate) fn start(lab: &Lab, id: &str, backend: &str, trail: &Path) -> Self {
        let said = lab.dir().join(format!("{id}.stderr"));
        let mut watch = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
        watch.args(["watch", "--sandbox-id", id, "--provider", "firecracker"]);
        watch.args(["--policy", POLICY, "--syscalls", backend, "--trail"]);
        watch.arg(trail).stdout(Stdio::null());
        watch.stderr(File::create(&said).unwrap());
        let child = watch.spawn().unwrap();
        Self { child, said }
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "never {what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        // Harmless where it ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Firecracker whose vCPU meets its filter ends as the real one does.
#[track_caller]
fn check_forbidden_call(backend: &str, lab: &Lab) {
    let id = format!("f{}{backend}", lab.id());
    let mut config = config(lab, StandInForm::Firecracker, &id);
    config.boot_args += " standin.forbidden_ms=700";
    let vmm = lab.stand_in(&config).unwrap();
    let trail = lab.dir().join(format!("{id}.jsonl"));
    let mut watch = One::start(lab, &id, backend, &trail);
    watch.until("does it begin", |watch| {
        watch.said().contains("Ctrl-C ends")
    });
    vmm.start().unwrap();
    // A guest program from before this test does not: cargo xtask setup.
    watch.until("does the VMM meet its filter and end", |watch| {
        watch.child.try_wait().unwrap().is_some()
    });
    assert!(watch.child.wait().unwrap().success(), "{}", watch.said());

    let records = records(&trail);
    assert_eq!(in_force(&records)["backend"], backend);
    let found = findings(&records);
    let found: Vec<_> = found
        .iter()
        .map(|(kind, detail, result)| (kind.as_str(), detail.as_str(), result.as_str()))
        .filter(|(kind, ..)| !matches!(*kind, "no_seccomp" | "new_privs_possible"))
        .collect();
    let met = "a seccomp filter met getpgid: SIGSYS";
    let status = "exit status 148: Firecracker's word for a forbidden call";
    let expected = [
        ("seccomp_violation", met, "anomaly"),
        ("seccomp_exit", status, "anomaly"),
    ];
    assert_eq!(found, expected, "{backend}");
    let violation = of_type(&records, "syscall_activity")
        .into_iter()
        .find(|record| record["payload"]["finding"]["kind"] == "seccomp_violation");
    let payload = &violation.unwrap()["payload"];
    assert_eq!(payload["group"], "vcpu", "{payload}");
    assert_eq!(payload["process"]["pid"], vmm.pid());
}

#[test]
fn a_firecracker_that_ends_with_148_has_it_in_its_trail() {
    let Some(lab) = lab("a_firecracker_that_ends_with_148_has_it_in_its_trail") else {
        return;
    };
    for backend in ["ebpf", "ptrace"] {
        check_forbidden_call(backend, &lab);
    }
}
