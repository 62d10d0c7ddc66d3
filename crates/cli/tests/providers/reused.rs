//! The pid of a sandbox that ended is given to another one with the same
//! arguments while both are watched.

use crate::fleet::{Watch, check_trail, of_type, records};
use crate::support::{Alone, config, lab};
use rustix::process::Signal;
use sandtrace_lab::{StandIn, StandInConfig, StandInForm};
use sandtrace_sys::proc_events::ProcEvents;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Set in a PID namespace of the tests' own.
const WITHIN: &str = "SANDTRACE_TEST_REUSED";

/// What firecracker-containerd starts has the same arguments for every VM.
fn config_of(lab: &Alone, name: &str) -> StandInConfig {
    let id = format!("i{}{name}", lab.id());
    config(lab, StandInForm::Containerd, &id)
}

/// A VMM of this pid, by and by: other processes start meanwhile.
#[track_caller]
fn with_pid(lab: &Alone, config: &StandInConfig, pid: u32) -> StandIn {
    let config = StandInConfig {
        pid: Some(pid),
        ..config.clone()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let vmm = lab.stand_in_unconfigured(&config).unwrap();
        if vmm.pid() == pid {
            vmm.configure(&config).unwrap();
            return vmm;
        }
        drop(vmm);
        assert!(Instant::now() < deadline, "pid {pid} is never given again");
    }
}

fn arguments(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap()
}

/// What of a trail says which process it is of.
fn process(trail: &std::path::Path) -> (u64, String) {
    let all = records(trail);
    let vmm = of_type(&all, "sandbox_attached")[0]["payload"]["vmm"].clone();
    (vmm["pid"].as_u64().unwrap(), vmm["start_ticks"].to_string())
}

/// One after the other has the pid: the first change is seen as it happens, at
/// the second the watch stands still, so that both halves of it come at once.
fn check_successors(lab: &Alone) {
    let watch = Watch::start(lab, &[]);
    let mut vmm = lab.stand_in(&config_of(lab, "old0")).unwrap();
    let (pid, line) = (vmm.pid(), arguments(vmm.pid()));
    let mut trails = Vec::new();
    for (number, at_once) in [false, true, true].into_iter().enumerate() {
        let id = format!("i{}old{number}", lab.id());
        let trail = watch.await_trail(&id, "sandbox_attached");
        vmm.start().unwrap();
        watch.await_trail(&id, "network_egress");
        // Five frames, 20 ms apart, and the baseline of the disk.
        std::thread::sleep(Duration::from_millis(800));
        trails.push((id, trail));
        let next = config_of(lab, &format!("old{}", number + 1));
        if at_once {
            watch.signal(Signal::STOP);
        }
        vmm.kill();
        vmm = with_pid(lab, &next, pid);
        assert_eq!(arguments(pid), line);
        watch.signal(Signal::CONT);
    }
    let last = format!("i{}old3", lab.id());
    trails.push((last.clone(), watch.await_trail(&last, "sandbox_attached")));
    vmm.start().unwrap();
    watch.await_trail(&last, "network_egress");
    std::thread::sleep(Duration::from_millis(800));
    vmm.kill();
    let mut starts = Vec::new();
    for (id, trail) in &trails {
        assert_eq!(watch.await_trail(id, "trail_end"), *trail);
        check_trail(trail, id, 5);
        let (of, start) = process(trail);
        assert_eq!(of, u64::from(pid), "{id}");
        starts.push(start);
        let all = records(trail);
        assert!(of_type(&all, "capture_gap").is_empty(), "{all:?}");
    }
    starts.dedup();
    assert_eq!(starts.len(), trails.len(), "{starts:?}");
    watch.interrupt();
}

#[test]
fn a_pid_that_is_used_again_under_a_watch_is_another_sandbox() {
    let test = "a_pid_that_is_used_again_under_a_watch_is_another_sandbox";
    let Some(lab) = lab(test) else {
        return;
    };
    check_successors(&lab);
}

/// Nobody tells of starts there: new processes are looked for, by their pids.
#[test]
fn a_pid_that_is_used_again_where_no_events_tell() {
    let test = "a_pid_that_is_used_again_where_no_events_tell";
    if std::env::var_os(WITHIN).is_some() {
        assert!(ProcEvents::open().is_err(), "there are events after all");
        return check_successors(&lab(test).unwrap());
    }
    if lab(test).is_none() {
        return;
    }
    let mut apart = Command::new("unshare");
    apart.args(["--pid", "--fork", "--mount-proc"]);
    apart.arg(std::env::current_exe().unwrap());
    apart.args(["--exact", &format!("reused::{test}"), "--nocapture"]);
    let output = apart.env(WITHIN, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}{errors}");
}
