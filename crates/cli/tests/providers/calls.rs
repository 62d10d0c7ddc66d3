//! `sandtrace watch --all --syscalls`: each VMM's calls in its own trail.

use crate::fleet::{Watch, of_type, records};
use crate::support::{config, lab};
use sandtrace_lab::StandInForm;
use serde_json::Value;
use std::time::Duration;

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
