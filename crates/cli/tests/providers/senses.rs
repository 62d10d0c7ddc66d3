//! What tells a watch that something happened, with the kernel's process
//! events and without.

use crate::fleet::{Watch, check_trail, of_type, records};
use crate::manners::{check_soon, now_ms, recorded_ms};
use crate::support::{Alone, config, lab, skipped, started};
use sandtrace_lab::StandInForm;
use sandtrace_sys::proc_events::ProcEvents;
use std::process::Command;
use std::time::Duration;

/// Set in a PID namespace of the tests' own.
const WITHIN: &str = "SANDTRACE_TEST_SENSES";

/// Each VMM is on record soon after it has its tap, and before its guest sends
/// anything: that runs at once, and its first frame comes 100 ms later. The
/// first VMM teaches a watch where the others will be.
#[track_caller]
fn check_latencies(lab: &Alone, watch: &Watch, count: usize) {
    let mut vmms = Vec::new();
    let took = (0..count).map(|number| {
        let id = format!("i{}n{number}", lab.id());
        let config = config(lab, StandInForm::E2b, &id);
        let vmm = lab.stand_in(&config).unwrap();
        let ready = now_ms();
        vmm.start().unwrap();
        let trail = watch.await_trail(&id, "sandbox_attached");
        vmms.push((id, vmm));
        // At another moment of the second for each.
        std::thread::sleep(Duration::from_millis(130));
        recorded_ms(of_type(&records(&trail), "sandbox_attached")[0]).saturating_sub(ready)
    });
    let took: Vec<u64> = took.collect();
    // Five frames, 20 ms apart, of the last of them too.
    std::thread::sleep(Duration::from_millis(300));
    for (id, mut vmm) in vmms {
        vmm.kill();
        check_trail(&watch.await_trail(&id, "trail_end"), &id, 5);
    }
    // By looking each second it would take half a second on average.
    check_soon(took);
}

/// In a PID namespace of its own a watch gets no process events.
#[test]
fn attached_soon_without_process_events() {
    let test = "attached_soon_without_process_events";
    if std::env::var_os(WITHIN).is_some() {
        return within(test);
    }
    if lab(test).is_none() {
        return;
    }
    // While anybody listens the kernel sends them everywhere, with ids that
    // mean other processes there.
    let _listener = ProcEvents::open();
    let mut apart = Command::new("unshare");
    apart.args(["--pid", "--fork", "--mount-proc"]);
    apart.arg(std::env::current_exe().unwrap());
    apart.args(["--exact", "senses::attached_soon_without_process_events"]);
    let output = apart.arg("--nocapture").env(WITHIN, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{errors}"
    );
}

fn within(test: &str) {
    assert!(ProcEvents::open().is_err(), "there are events after all");
    let lab = lab(test).unwrap();
    let watch = Watch::start(&lab, &["--syscalls", "off"]);
    check_latencies(&lab, &watch, 15);
    let said = watch.interrupt();
    assert!(said.contains("no process events"), "{said}");
}

#[test]
fn attached_at_once_by_process_events() {
    let Some(lab) = lab("attached_at_once_by_process_events") else {
        return;
    };
    if let Err(error) = ProcEvents::open() {
        return skipped("attached_at_once_by_process_events", &error);
    }
    // The events are those of the first network namespace, wherever the watch is.
    let mut command = Command::new("ip");
    command.args(["netns", "exec", lab.netns()]);
    command.arg(env!("CARGO_BIN_EXE_sandtrace"));
    let more = ["--provider", "e2b", "--syscalls", "off"];
    let watch = Watch::over(command, &lab, &more);
    check_latencies(&lab, &watch, 15);
    let said = watch.interrupt();
    assert!(!said.contains("no process events"), "{said}");
}

/// The kernel tells of a cgroup that is frozen; nobody waits for the interval.
#[test]
fn an_event_of_a_cgroup_is_a_look() {
    let Some(lab) = lab("an_event_of_a_cgroup_is_a_look") else {
        return;
    };
    let more = ["--state-interval", "1h", "--syscalls", "off"];
    let watch = Watch::start(&lab, &more);
    for form in [StandInForm::E2b, StandInForm::Jailed] {
        let id = format!("i{}{form:?}", lab.id()).to_lowercase();
        let vmm = started(&lab, &config(&lab, form, &id));
        let trail = watch.await_trail(&id, "network_egress");
        // It is listened to from a moment after that on.
        std::thread::sleep(Duration::from_millis(300));
        if !vmm.freeze(true).unwrap() {
            skipped(&format!("{form:?}"), &"no cgroup of its own on this host");
            continue;
        }
        watch.await_trail(&id, "\"paused\"");
        vmm.freeze(false).unwrap();
        watch.await_trail(&id, "\"running\"");
        let all = records(&trail);
        let states = of_type(&all, "sandbox_state");
        assert_eq!(states[0]["payload"]["source"], "cgroup", "{states:?}");
        assert_eq!(states[0]["payload"]["state"], "paused", "{states:?}");
        assert_eq!(states[1]["payload"]["state"], "running", "{states:?}");
    }
    watch.interrupt();
}
