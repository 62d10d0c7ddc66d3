//! What a real seccomp filter does to a real process, and what is said of one
//! that has none.

use crate::calls::{Attach, BACKENDS};
use crate::program::{Running, compiled, skipped, until};
use crate::records::{Records, now};
use rustix::process::Signal;
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig, VmmKind};
use sandtrace_event::SyscallFindingKind as Kind;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long looks go on at one that does not end by itself: it is looked at
/// once a second before, and every half a second after it became a vCPU.
const LOOKS: Duration = Duration::from_millis(1600);

/// Findings of one run, in order, each with its sentence.
fn findings(arguments: &[&str], attach: Attach) -> Vec<(Kind, String)> {
    let mode = arguments[0];
    let program = Running::start(&compiled("confined.c"), arguments);
    let named = |name: &str| {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", program.pid()));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    };
    until("it has its filter", || named("ready"));
    let config = SyscallConfig {
        pid: program.pid(),
        vmm: Some(VmmKind::Firecracker),
        disks: Vec::new(),
        name: mode.to_owned(),
    };
    let mut collector = SyscallCollector::new(config, attach(program.pid()), now());
    let mut records = Records::default();
    if matches!(mode, "idle" | "late") {
        look(&mut collector, &mut records);
        assert!(!records.0.iter().any(|record| record.finding.is_some()));
        program.signal(Signal::USR1);
        until("it is a vCPU", || named("fc_vcpu 0"));
        look(&mut collector, &mut records);
    }
    program.signal(Signal::USR1);
    until("it ends", || {
        collector.poll(now(), &mut records);
        collector.has_ended()
    });
    collector.finish(now(), &mut records);
    let findings = records.0.into_iter().filter_map(|record| record.finding);
    findings.map(|it| (it.kind, it.detail)).collect()
}

/// Goes on for some looks.
fn look(collector: &mut SyscallCollector, records: &mut Records) {
    let began = Instant::now();
    until("some looks were made", || {
        collector.poll(now(), records);
        began.elapsed() > LOOKS
    });
}

#[track_caller]
fn check(mode: &str, expected: &[(Kind, &str)]) {
    check_with(&[mode], expected);
}

#[track_caller]
fn check_with(arguments: &[&str], expected: &[(Kind, &str)]) {
    let mode = arguments.join(" ");
    if skipped(&mode) {
        return;
    }
    for (backend, attach) in BACKENDS {
        let found = findings(arguments, attach);
        let found: Vec<_> = found
            .iter()
            .map(|(kind, detail)| (*kind, detail.as_str()))
            .collect();
        assert_eq!(found, expected, "{mode} by {backend}");
    }
}

const MET: &str = "a seccomp filter met getpgid: SIGSYS";

#[test]
fn a_filter_that_kills_the_process_is_a_finding() {
    check("kill", &[(Kind::SeccompViolation, MET)]);
}

#[test]
fn a_filter_that_kills_one_thread_is_a_finding() {
    check("thread", &[(Kind::SeccompViolation, MET)]);
}

/// The same call by the number that it has for 32-bit programs.
#[test]
fn a_filter_that_is_met_by_an_old_call_says_so() {
    let met = "a seccomp filter met getpgid (32-bit): SIGSYS";
    let status = "exit status 148: Firecracker's word for a forbidden call";
    check_with(&["kill", "old"], &[(Kind::SeccompViolation, met)]);
    check_with(&["thread", "old"], &[(Kind::SeccompViolation, met)]);
    check_with(
        &["trap", "old"],
        &[(Kind::SeccompViolation, met), (Kind::SeccompExit, status)],
    );
}

#[test]
fn a_signal_that_somebody_sends_is_no_finding() {
    if skipped("a_signal_that_somebody_sends_is_no_finding") {
        return;
    }
    for (backend, attach) in BACKENDS {
        for script in ["kill -SYS $$", "trap : SYS; kill -SYS $$; exit 0"] {
            let script = format!(
                "trap 'go=1' USR1; printf ready >/proc/$$/comm; \
                while [ -z \"$go\" ]; do sleep 0.05; done; {script}"
            );
            let records = crate::calls::records(Path::new("sh"), &["-c", &script], attach);
            let found: Vec<_> = records
                .iter()
                .filter_map(|it| it.finding.as_ref())
                .collect();
            assert!(found.is_empty(), "{backend}, {script}: {found:?}");
        }
    }
}

#[test]
fn firecrackers_way_to_end_is_two_findings() {
    let status = "exit status 148: Firecracker's word for a forbidden call";
    check(
        "trap",
        &[(Kind::SeccompViolation, MET), (Kind::SeccompExit, status)],
    );
}

#[test]
fn a_vcpu_without_a_filter_is_found_once() {
    check(
        "idle",
        &[
            (
                Kind::NoSeccomp,
                "1 of 1 threads have no seccomp filter: fc_vcpu 0",
            ),
            (
                Kind::NewPrivsPossible,
                "1 of 1 threads may gain privileges by execve: fc_vcpu 0",
            ),
        ],
    );
}

#[test]
fn a_vcpu_that_puts_its_filter_on_when_the_guest_starts_is_not() {
    check("late", &[]);
}
