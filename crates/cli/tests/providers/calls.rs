//! `sandtrace watch --all --syscalls`: each VMM's calls in its own trail.

use crate::fleet::{Watch, of_type, records};
use crate::support::{config, lab};
use sandtrace_lab::{Lab, StandInForm};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// A Firecracker whose vCPU meets its filter ends as the real one does.
#[track_caller]
fn check_forbidden_call(backend: &str, lab: &Lab) {
    let id = format!("f{}{backend}", lab.id());
    let mut config = config(lab, StandInForm::Firecracker, &id);
    config.boot_args += " standin.forbidden_ms=700";
    let vmm = lab.stand_in(&config).unwrap();
    let trail = lab.dir().join(format!("{id}.jsonl"));
    let mut watch = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    watch.args(["watch", "--sandbox-id", &id, "--provider", "firecracker"]);
    watch.args(["--policy", POLICY, "--syscalls", backend, "--trail"]);
    let mut watch = watch
        .arg(&trail)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(watch.stderr.take().unwrap()).lines();
    let begun = said.any(|line| line.unwrap().contains("Ctrl-C ends"));
    assert!(begun, "{backend}: the watch ended early");
    vmm.start().unwrap();
    let rest: Vec<_> = said.map(Result::unwrap).collect();
    assert_eq!(watch.wait().unwrap().code(), Some(0), "{rest:?}");

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
