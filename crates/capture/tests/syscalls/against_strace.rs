//! The same deterministic program under strace and under a backend: equal
//! counts and errors of every call.

use crate::program::{Running, Waiting, skipped, until};
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_capture::syscall::{SyscallSource, names};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::bpf::BpfConfig;
use std::collections::BTreeMap;
use std::process::Command;

/// Calls and errors by table and name.
type Totals = BTreeMap<(SyscallAbi, String), (u64, u64)>;

fn with_strace() -> Totals {
    let mut program = Waiting::new();
    let directory = tempfile::tempdir().unwrap();
    let answer = directory.path().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-q", "-o"]).arg(&answer);
    strace.arg("-p").arg(program.pid().to_string());
    let mut strace = Running::child(&mut strace);
    let status = format!("/proc/{}/status", program.pid());
    until("strace attaches", || {
        let status = std::fs::read_to_string(&status).unwrap();
        status
            .lines()
            .any(|line| line == format!("TracerPid:\t{}", strace.pid()))
    });
    program.go();
    strace.wait();
    parse(&std::fs::read_to_string(answer).unwrap())
}

/// `% time, seconds, usecs/call, calls, errors, syscall`; errors may be missing.
fn parse(table: &str) -> Totals {
    let mut abi = SyscallAbi::Native;
    let mut totals = Totals::new();
    for line in table.lines() {
        if line.contains("32 bit mode") {
            abi = SyscallAbi::I386;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let (calls, errors, name) = match words.as_slice() {
            [_, _, _, calls, name] => (calls, "0", name),
            [_, _, _, calls, errors, name] => (calls, *errors, name),
            _ => continue,
        };
        let (Ok(calls), Ok(errors)) = (calls.parse(), errors.parse()) else {
            continue;
        };
        if *name != "total" {
            totals.insert((abi, (*name).to_owned()), (calls, errors));
        }
    }
    totals
}

fn with_backend(attach: impl FnOnce(u32) -> Box<dyn SyscallSource>) -> Totals {
    let mut program = Waiting::new();
    let mut source = attach(program.pid());
    program.go();
    until("every process has ended", || source.has_ended());
    source.detach();
    let counts = source.counts();
    assert_eq!(counts.losses, []);
    let mut totals = Totals::new();
    for (key, _, tally) in counts.calls {
        let name = names::name(key.abi, key.number);
        let total = totals.entry((key.abi, name)).or_default();
        total.0 += tally.count;
        total.1 += tally.errors;
    }
    totals
}

#[track_caller]
fn check(
    test: &str,
    differs: &[(&str, (u64, u64))],
    attach: impl FnOnce(u32) -> Box<dyn SyscallSource>,
) {
    if skipped(test) {
        return;
    }
    let mut expected = with_strace();
    assert_eq!(
        expected[&(SyscallAbi::Native, "getppid".to_owned())],
        (800, 0)
    );
    assert_eq!(expected[&(SyscallAbi::I386, "close".to_owned())], (7, 7));
    assert!(expected.contains_key(&(SyscallAbi::Native, "restart_syscall".to_owned())));
    for (name, total) in differs {
        expected.insert((SyscallAbi::Native, (*name).to_owned()), *total);
    }
    assert_eq!(with_backend(attach), expected);
}

#[test]
fn ptrace_counts_as_strace_does() {
    let attach = |pid| Box::new(PtraceSource::attach(pid).unwrap()) as _;
    check("ptrace_counts_as_strace_does", &[], attach);
}

#[test]
fn ebpf_counts_as_strace_does() {
    // A tracer wakes a stopped process once more to see SIGCONT, which
    // interrupts the restarted call again. Without one it is restarted once.
    let differs = [("restart_syscall", (1, 0))];
    let attach = |pid| Box::new(EbpfSource::attach(pid, BpfConfig::default()).unwrap()) as _;
    check("ebpf_counts_as_strace_does", &differs, attach);
}
