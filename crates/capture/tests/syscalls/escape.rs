//! A staged escape: what a helper does that a VMM was made to start.

use crate::program::{Running, skipped, until};
use crate::records::{Records, now};
use rustix::process::Signal;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig, SyscallSource, VmmKind};
use sandtrace_event::SyscallActivity;
use sandtrace_sys::bpf::BpfConfig;
use std::path::Path;
use std::time::Duration;

/// Waits for a signal, then runs a program that reads what it should not,
/// and one that connects out.
const ESCAPE: &str = "trap 'go=1' USR1; while [ -z \"$go\" ]; do sleep 0.05; done; \
    /usr/bin/head -c 1 /etc/shadow >/dev/null; \
    /bin/bash -c ': <>/dev/tcp/127.0.0.9/9' 2>/dev/null; \
    true";

/// Whether a record is this call by a process that the VMM started.
fn is(record: &SyscallActivity, vmm: u32, name: &str, subject: &str) -> bool {
    let Some(call) = &record.call else {
        return false;
    };
    let subjects = [&call.path, &call.address];
    let says = subjects
        .into_iter()
        .flatten()
        .any(|own| own.contains(subject));
    call.name == name && says && record.process.started_by_vmm && record.process.pid != vmm
}

#[track_caller]
fn check(test: &str, attach: impl FnOnce(u32) -> Box<dyn SyscallSource>) {
    if skipped(test) {
        return;
    }
    let mut shell = Running::start(Path::new("sh"), &["-c", ESCAPE]);
    std::thread::sleep(Duration::from_millis(200));
    let config = SyscallConfig {
        pid: shell.pid(),
        vmm: Some(VmmKind::Firecracker),
        disks: Vec::new(),
        name: test.to_owned(),
    };
    let mut collector = SyscallCollector::new(config, attach(shell.pid()), now());
    let mut records = Records::default();
    shell.signal(Signal::USR1);
    until("the escape is over", || {
        collector.poll(now(), &mut records);
        collector.has_ended()
    });
    shell.wait();
    collector.finish(now(), &mut records);

    let vmm = shell.pid();
    let expected = [
        ("execve", "head"),
        ("openat", "/etc/shadow"),
        ("execve", "/bin/bash"),
        ("connect", "127.0.0.9:9"),
    ];
    let places = expected.map(|(name, subject)| {
        let place = records
            .0
            .iter()
            .position(|record| is(record, vmm, name, subject));
        place.unwrap_or_else(|| panic!("no {name} {subject} in {:#?}", records.0))
    });
    assert!(places.is_sorted(), "{places:?}");
    let argv = records.0[places[0]]
        .call
        .as_ref()
        .map(|call| call.argv.clone());
    assert_eq!(argv.unwrap(), ["/usr/bin/head", "-c", "1", "/etc/shadow"]);
    assert!(records.0.iter().any(|record| record.summary.is_some()));
}

#[test]
fn ebpf_tells_an_escape_in_order() {
    check("ebpf_tells_an_escape_in_order", |pid| {
        Box::new(EbpfSource::attach(pid, BpfConfig::default()).unwrap())
    });
}

#[test]
fn ptrace_tells_an_escape_in_order() {
    check("ptrace_tells_an_escape_in_order", |pid| {
        Box::new(PtraceSource::attach(pid).unwrap())
    });
}
