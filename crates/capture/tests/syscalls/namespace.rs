//! A PID namespace, where processes have other ids than the host's.

use crate::program::skipped;
use sandtrace_capture::syscall::ebpf::EbpfHub;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_sys::bpf::{BpfConfig, BpfError, BpfQuota};
use std::process::Command;

/// Set where this test binary is within a namespace.
const WITHIN: &str = "SANDTRACE_TEST_PIDNS";

/// Not a test of its own: what the next one runs in a namespace.
#[test]
fn loading_within_a_namespace() {
    if std::env::var_os(WITHIN).is_none() {
        return;
    }
    let loaded = EbpfHub::load(BpfConfig::default(), BpfQuota::EVERYTHING);
    let error = loaded.err().expect("refused");
    assert!(matches!(error, BpfError::PidNamespace), "{error}");
    println!("it says: {error}");
}

/// Not a test of its own either: with the host's `/proc`.
#[test]
fn tracing_by_foreign_ids() {
    if std::env::var_os(WITHIN).is_none() {
        return;
    }
    let error = PtraceSource::attach(1).err().expect("refused");
    println!("it says: {error}");
}

#[track_caller]
fn check(arguments: &[&str], test: &str, expected: &str) {
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(arguments)
        .arg(own)
        .args(["--exact", "--nocapture", test])
        .env(WITHIN, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains(expected), "{said}");
}

#[test]
fn with_the_proc_of_another_namespace_nothing_is_traced() {
    if skipped("with_the_proc_of_another_namespace_nothing_is_traced") {
        return;
    }
    check(
        &["--pid", "--fork"],
        "namespace::tracing_by_foreign_ids",
        "/proc is that of another PID namespace",
    );
}

#[test]
fn within_a_namespace_nothing_is_counted_by_wrong_ids() {
    if skipped("within_a_namespace_nothing_is_counted_by_wrong_ids") {
        return;
    }
    check(
        &["--pid", "--fork", "--mount-proc"],
        "namespace::loading_within_a_namespace",
        "not the host's PID namespace",
    );
}
