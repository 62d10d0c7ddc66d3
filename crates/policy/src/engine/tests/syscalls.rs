//! VMM system calls: profiles, rules and findings.

use crate::Engine;
use crate::testing::{engine, judged};
use sandtrace_event::{
    CallCount, CallSummary, CallingProcess, Count, RareCall, SyscallAbi, SyscallActivity,
    SyscallBackend, SyscallFinding, SyscallFindingKind, SyscallSubject,
};

fn activity(vmm: Option<&str>, group: &str) -> SyscallActivity {
    SyscallActivity {
        backend: SyscallBackend::Ebpf,
        call: None,
        finding: None,
        group: group.to_owned(),
        process: CallingProcess {
            name: "firecracker".to_owned(),
            pid: 7,
            started_by_vmm: group == "child",
        },
        subject: SyscallSubject::Vmm,
        summary: None,
        vmm: vmm.map(ToOwned::to_owned),
    }
}

/// Calls of a summary; `i386:` before a name for the other table.
fn summary(vmm: Option<&str>, group: &str, calls: &[&str]) -> SyscallActivity {
    let calls = calls.iter().map(|name| CallCount {
        abi: match name.starts_with("i386:") {
            true => SyscallAbi::I386,
            false => SyscallAbi::Native,
        },
        count: Count(1),
        errors: Count(0),
        interrupted: Count(0),
        name: name.trim_start_matches("i386:").to_owned(),
        time_ns: Count(0),
    });
    SyscallActivity {
        summary: Some(CallSummary {
            calls: calls.collect(),
            interval_us: Count(1),
            kvm_exits: Count(0),
            threads: Count(1),
            vcpu_exits: Vec::new(),
        }),
        ..activity(vmm, group)
    }
}

fn rare(name: &str, path: Option<&str>, address: Option<&str>) -> SyscallActivity {
    SyscallActivity {
        call: Some(RareCall {
            abi: SyscallAbi::Native,
            address: address.map(ToOwned::to_owned),
            arguments: Vec::new(),
            argv: Vec::new(),
            detail: None,
            name: name.to_owned(),
            path: path.map(ToOwned::to_owned),
            path_b64: None,
            repeats: Count(1),
            tid: 7,
            unread: Vec::new(),
        }),
        ..activity(Some("firecracker"), "main")
    }
}

fn finding(kind: SyscallFindingKind) -> SyscallActivity {
    SyscallActivity {
        finding: Some(SyscallFinding {
            detail: "what was found".to_owned(),
            kind,
            tid: None,
        }),
        ..activity(Some("firecracker"), "main")
    }
}

#[track_caller]
fn check(engine: &mut Engine, activity: SyscallActivity, expected: &str) {
    assert_eq!(judged(engine, activity), expected);
}

const NO_RULES: &str = "defaults: {network: deny}";

#[test]
fn the_profile_of_a_known_vmm_needs_no_rule() {
    let engine = &mut engine(NO_RULES);
    let firecracker = Some("firecracker");
    check(
        engine,
        summary(firecracker, "vcpu", &["ioctl", "write"]),
        "allow builtin:vmm-profile: calls of vcpu threads are in their profile",
    );
    check(
        engine,
        summary(firecracker, "vcpu", &["ioctl", "socket"]),
        "anomaly builtin:vmm-profile: calls outside the profile of vcpu threads: socket",
    );
    check(
        engine,
        summary(firecracker, "main", &["i386:read"]),
        "anomaly builtin:vmm-profile: calls outside the profile of main threads: read (32-bit)",
    );
    check(
        engine,
        summary(firecracker, "main", &["socket", "getcwd", "execve"]),
        "deny -: the VMM's main threads made calls that are not allowed: execve",
    );
    check(
        engine,
        summary(firecracker, "child", &["read"]),
        "anomaly builtin:vmm-profile: calls outside the profile of child threads: read",
    );
    check(
        engine,
        summary(None, "main", &["read"]),
        "anomaly default:syscall: the policy has no rule for system calls of VMM process 7",
    );
}

#[test]
fn a_guest_that_ran_throughout_is_in_one_call() {
    let engine = &mut engine(NO_RULES);
    let running = |vmm: Option<&str>, group: &str| {
        let mut activity = summary(vmm, group, &[]);
        activity.summary.as_mut().unwrap().kvm_exits = Count(70);
        activity
    };
    check(
        engine,
        running(Some("firecracker"), "vcpu"),
        "allow builtin:vmm-profile: calls of vcpu threads are in their profile",
    );
    check(
        engine,
        running(Some("firecracker"), "child"),
        "anomaly builtin:vmm-profile: calls outside the profile of child threads: ioctl",
    );
    check(
        engine,
        running(None, "main"),
        "anomaly default:syscall: the policy has no rule for system calls of VMM process 7",
    );
}

#[test]
fn rare_calls() {
    let engine = &mut engine(NO_RULES);
    check(
        engine,
        rare("execve", Some("/bin/sh"), None),
        "deny -: execve /bin/sh by process 7 (firecracker): no VMM does that in its work",
    );
    check(
        engine,
        rare("open", Some("/etc/shadow"), None),
        "anomaly builtin:vmm-profile: open /etc/shadow by process 7 (firecracker): \
         the file is none of the sandbox's",
    );
    check(
        engine,
        rare("connect", None, Some("unix:/run/v.sock_52")),
        "allow builtin:vmm-profile: connect unix:/run/v.sock_52 by process 7 (firecracker) \
         is in the profile",
    );
    check(
        engine,
        rare("connect", None, Some("192.0.2.1:443")),
        "anomaly builtin:vmm-profile: connect 192.0.2.1:443 by process 7 (firecracker): \
         the address leads out of the host's own sockets",
    );
    check(
        engine,
        rare("prctl", None, None),
        "anomaly builtin:vmm-profile: prctl by process 7 (firecracker) is outside the profile",
    );
}

#[test]
fn rules_come_before_profiles() {
    let engine = &mut engine(
        "rules:\n  - {id: vmm, type: syscall, profile: firecracker, allow: [getcwd], deny: [write]}\n  \
           - {id: helper, type: syscall, threads: [child], allow: [read, execve]}",
    );
    let check = |activity, expected: &str| check(engine, activity, expected);
    let mut check = check;
    check(
        summary(Some("qemu"), "main", &["getcwd", "read"]),
        "allow vmm: calls of main threads are in their profile",
    );
    check(
        summary(Some("qemu"), "main", &["ppoll"]),
        "anomaly vmm: calls outside the profile of main threads: ppoll",
    );
    check(
        summary(Some("qemu"), "main", &["ppoll", "write"]),
        "deny vmm: the VMM's main threads made calls that are not allowed: write",
    );
    check(
        summary(None, "child", &["execve", "read"]),
        "allow helper: calls of child threads are in their profile",
    );
    check(
        summary(None, "child", &["mount"]),
        "deny -: the VMM's child threads made calls that are not allowed: mount",
    );
}

#[test]
fn a_name_alone_allows_no_file_and_no_address() {
    let engine = &mut engine("rules:\n  - {id: vmm, type: syscall, allow: [openat, connect]}");
    check(
        engine,
        rare("openat", Some("/etc/shadow"), None),
        "anomaly vmm: openat /etc/shadow by process 7 (firecracker): \
         the file is none of the sandbox's",
    );
    check(
        engine,
        rare("connect", None, Some("192.0.2.1:443")),
        "anomaly vmm: connect 192.0.2.1:443 by process 7 (firecracker): \
         the address leads out of the host's own sockets",
    );
    check(
        engine,
        rare("connect", None, Some("unix:/run/v.sock")),
        "allow vmm: the rule allows connect unix:/run/v.sock by process 7 (firecracker)",
    );
}

#[test]
fn findings_are_anomalies_unless_accepted() {
    check(
        &mut engine(NO_RULES),
        finding(SyscallFindingKind::NoSeccomp),
        "anomaly builtin:vmm-confinement: what was found",
    );
    let engine = &mut engine("rules:\n  - {id: dev, type: syscall, accept: [no_seccomp]}");
    check(
        engine,
        finding(SyscallFindingKind::NoSeccomp),
        "allow dev: accepted: what was found",
    );
    check(
        engine,
        finding(SyscallFindingKind::SeccompViolation),
        "anomaly builtin:vmm-confinement: what was found",
    );
    // A rule that accepts a finding says nothing of calls.
    check(
        engine,
        summary(Some("firecracker"), "vcpu", &["ioctl"]),
        "allow builtin:vmm-profile: calls of vcpu threads are in their profile",
    );
}

#[test]
fn records_that_say_nothing_are_never_allowed() {
    let engine = &mut engine("rules:\n  - {id: all, type: syscall, profile: qemu}");
    let nothing = activity(Some("qemu"), "main");
    check(
        engine,
        nothing,
        "deny -: the record says nothing that can be judged",
    );
    let empty = summary(Some("qemu"), "main", &[]);
    check(engine, empty, "deny -: the record counts no call");
}

/// What a ring does makes no calls: whoever does not need one must not have it.
#[test]
fn rings_are_for_threads_that_serve_disks() {
    let engine = &mut engine(NO_RULES);
    let mut check = |vmm, group, calls: &[&str], expected: &str| {
        let verdict = judged(engine, summary(Some(vmm), group, calls));
        assert!(verdict.starts_with(expected), "{vmm} {group}: {verdict}");
    };
    let (make, enter) = (&["io_uring_setup"], &["io_uring_enter"]);
    for (vmm, group) in [
        ("firecracker", "main"),
        ("qemu", "main"),
        ("qemu", "worker"),
        ("cloud-hypervisor", "main"),
        ("cloud-hypervisor", "vmm"),
    ] {
        check(vmm, group, make, "allow builtin:vmm-profile");
        check(vmm, group, enter, "allow builtin:vmm-profile");
    }
    for (vmm, group) in [("qemu", "vcpu"), ("cloud-hypervisor", "worker")] {
        check(vmm, group, make, "anomaly builtin:vmm-profile");
        check(vmm, group, enter, "allow builtin:vmm-profile");
    }
    for (vmm, group) in [
        ("firecracker", "api"),
        ("firecracker", "vcpu"),
        ("cloud-hypervisor", "api"),
        ("cloud-hypervisor", "vcpu"),
        ("firecracker", "child"),
    ] {
        check(vmm, group, make, "anomaly builtin:vmm-profile");
        check(vmm, group, enter, "anomaly builtin:vmm-profile");
    }
}
