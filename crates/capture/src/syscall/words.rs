//! Names of what plain arguments ask for; a number that has none stays one.

/// An operation of `prctl(2)` (linux/prctl.h).
pub(super) fn prctl(operation: u64) -> String {
    named(
        operation,
        &[
            (4, "PR_SET_DUMPABLE"),
            (22, "PR_SET_SECCOMP"),
            (24, "PR_CAPBSET_DROP"),
            (35, "PR_SET_MM"),
            (38, "PR_SET_NO_NEW_PRIVS"),
            (47, "PR_CAP_AMBIENT"),
            (0x5961_6d61, "PR_SET_PTRACER"),
        ],
    )
}

/// A request of `ptrace(2)` (linux/ptrace.h, asm/ptrace-abi.h of x86).
pub(super) fn ptrace(request: u64) -> String {
    named(
        request,
        &[
            (0, "PTRACE_TRACEME"),
            (1, "PTRACE_PEEKTEXT"),
            (2, "PTRACE_PEEKDATA"),
            (4, "PTRACE_POKETEXT"),
            (5, "PTRACE_POKEDATA"),
            (7, "PTRACE_CONT"),
            (12, "PTRACE_GETREGS"),
            (13, "PTRACE_SETREGS"),
            (16, "PTRACE_ATTACH"),
            (17, "PTRACE_DETACH"),
            (24, "PTRACE_SYSCALL"),
            (0x4204, "PTRACE_GETREGSET"),
            (0x4205, "PTRACE_SETREGSET"),
            (0x4206, "PTRACE_SEIZE"),
            (0x4207, "PTRACE_INTERRUPT"),
        ],
    )
}

/// A command of `bpf(2)` (linux/bpf.h).
pub(super) fn bpf(command: u64) -> String {
    named(
        command,
        &[
            (0, "BPF_MAP_CREATE"),
            (1, "BPF_MAP_LOOKUP_ELEM"),
            (2, "BPF_MAP_UPDATE_ELEM"),
            (3, "BPF_MAP_DELETE_ELEM"),
            (5, "BPF_PROG_LOAD"),
            (6, "BPF_OBJ_PIN"),
            (7, "BPF_OBJ_GET"),
            (8, "BPF_PROG_ATTACH"),
            (9, "BPF_PROG_DETACH"),
            (17, "BPF_RAW_TRACEPOINT_OPEN"),
            (18, "BPF_BTF_LOAD"),
            (28, "BPF_LINK_CREATE"),
        ],
    )
}

fn named(value: u64, names: &[(u64, &str)]) -> String {
    let name = names.iter().find(|(number, _)| *number == value);
    name.map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
}

/// `CLONE_NEW*` (linux/sched.h).
pub(super) fn namespaces(flags: u64) -> String {
    const KINDS: [(u64, &str); 8] = [
        (0x80, "time"),
        (0x0002_0000, "mount"),
        (0x0200_0000, "cgroup"),
        (0x0400_0000, "uts"),
        (0x0800_0000, "ipc"),
        (0x1000_0000, "user"),
        (0x2000_0000, "pid"),
        (0x4000_0000, "net"),
    ];
    let kinds = KINDS.iter().filter(|(flag, _)| flags & flag != 0);
    let kinds: Vec<_> = kinds.map(|(_, kind)| *kind).collect();
    if kinds.is_empty() {
        format!("{flags:#x}")
    } else {
        kinds.join(", ")
    }
}
