//! `sandtrace watch --all --syscalls`: each VMM's calls in its own trail.

use crate::fleet::{Watch, of_type, records};
use crate::support::{config, lab};
use sandtrace_lab::{Lab, StandInForm};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const POLICY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../policies/stripe-exfil.yaml"
);

/// What was said of system calls when the trail began.
fn in_force(records: &[Value]) -> &Value {
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
        let unconfined = |record: &&&Value| record["payload"]["finding"]["kind"] == "no_seccomp";
        assert_eq!(calls.iter().filter(unconfined).count(), 1);
        assert!(of_type(&records, "capture_gap").is_empty());
    }
    watch.interrupt();
}

/// The findings of a trail, each with its sentence and verdict, in order.
fn findings(records: &[Value]) -> Vec<(String, String, String)> {
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

/// A watch of one sandbox that is killed where the test fails.
struct One {
    child: Child,
    said: PathBuf,
}

impl One {
    fn start(lab: &Lab, id: &str, backend: &str, trail: &Path) -> Self {
        let said = lab.dir().join(format!("{id}.stderr"));
        let mut watch = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
        watch.args(["watch", "--sandbox-id", id, "--provider", "firecracker"]);
        watch.args(["--policy", POLICY, "--syscalls", backend, "--trail"]);
        watch.arg(trail).stdout(Stdio::null());
        watch.stderr(File::create(&said).unwrap());
        let child = watch.spawn().unwrap();
        Self { child, said }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
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
