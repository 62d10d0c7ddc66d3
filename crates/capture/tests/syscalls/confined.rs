//! What a real seccomp filter does to a real process, and what is said of one
//! that has none.

use crate::program::{Running, compiled, skipped, until};
use crate::records::{Records, now};
use rustix::process::Signal;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig, SyscallSource, VmmKind};
use sandtrace_event::SyscallFindingKind as Kind;
use sandtrace_sys::bpf::BpfConfig;

type Attach = fn(u32) -> Box<dyn SyscallSource>;

const BACKENDS: [(&str, Attach); 2] = [
    ("ebpf", |pid| {
        Box::new(EbpfSource::attach(pid, BpfConfig::default()).unwrap())
    }),
    ("ptrace", |pid| Box::new(PtraceSource::attach(pid).unwrap())),
];

/// Findings of one run, in order, each with its sentence.
fn findings(mode: &str, attach: Attach) -> Vec<(Kind, String)> {
    let program = Running::start(&compiled("confined.c"), &[mode]);
    let comm = format!("/proc/{}/comm", program.pid());
    until("it has its filter", || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "ready\n")
    });
    let config = SyscallConfig {
        pid: program.pid(),
        vmm: Some(VmmKind::Firecracker),
        disks: Vec::new(),
        name: mode.to_owned(),
    };
    let mut collector = SyscallCollector::new(config, attach(program.pid()), now());
    let mut records = Records::default();
    collector.look_at_confinement(now(), &mut records);
    program.signal(Signal::USR1);
    until("it ends", || {
        collector.poll(now(), &mut records);
        collector.has_ended()
    });
    collector.finish(now(), &mut records);
    let findings = records.0.into_iter().filter_map(|record| record.finding);
    findings.map(|it| (it.kind, it.detail)).collect()
}

#[track_caller]
fn check(mode: &str, expected: &[(Kind, &str)]) {
    check_each(mode, [expected, expected]);
}

#[track_caller]
fn check_each(mode: &str, expected: [&[(Kind, &str)]; 2]) {
    if skipped(mode) {
        return;
    }
    for ((backend, attach), expected) in BACKENDS.into_iter().zip(expected) {
        let found = findings(mode, attach);
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
    // No signal is delivered that would tell which call it was.
    let unknown = "a seccomp filter met a call: SIGSYS";
    check_each(
        "thread",
        [
            &[(Kind::SeccompViolation, unknown)],
            &[(Kind::SeccompViolation, MET)],
        ],
    );
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
fn a_process_without_a_filter_is_found() {
    check(
        "idle",
        &[
            (
                Kind::NoSeccomp,
                "1 of 1 threads have no seccomp filter: ready",
            ),
            (
                Kind::NewPrivsPossible,
                "1 of 1 threads may gain privileges by execve: ready",
            ),
        ],
    );
}
