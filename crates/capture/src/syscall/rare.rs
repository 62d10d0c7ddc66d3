//! Which calls are reported one by one, and what their arguments point to.

use super::names;
use sandtrace_event::SyscallAbi;
use std::collections::HashMap;

/// Which arguments of a call are pointers worth following.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Argument that points to a path.
    pub(crate) path: Option<u8>,
    /// Argument that points to a socket address; its length is in the next.
    pub(crate) address: Option<u8>,
    /// Argument that points to a list of strings.
    pub(crate) argv: Option<u8>,
    /// Arguments that point to other texts, for a call without a list.
    pub(crate) texts: [Option<u8>; 2],
}

const fn path(argument: u8) -> Shape {
    Shape {
        path: Some(argument),
        ..PLAIN
    }
}

/// A text that is no path.
const fn text(argument: u8) -> Shape {
    Shape {
        texts: [Some(argument), None],
        ..PLAIN
    }
}

const PLAIN: Shape = Shape {
    path: None,
    address: None,
    argv: None,
    texts: [None, None],
};

const ADDRESS: Shape = Shape {
    address: Some(1),
    ..PLAIN
};

/// Calls that a VMM in its work has next to no use for, and an intruder has.
const RARE: &[(&str, Shape)] = &[
    ("acct", path(0)),
    (
        "add_key",
        Shape {
            texts: [Some(0), Some(1)],
            ..PLAIN
        },
    ),
    ("bind", ADDRESS),
    ("bpf", PLAIN),
    ("capset", PLAIN),
    ("chroot", path(0)),
    ("connect", ADDRESS),
    ("creat", path(0)),
    ("delete_module", path(0)),
    (
        "execve",
        Shape {
            argv: Some(1),
            ..path(0)
        },
    ),
    (
        "execveat",
        Shape {
            argv: Some(2),
            ..path(1)
        },
    ),
    ("exit_group", PLAIN),
    ("finit_module", text(1)),
    (
        "fsconfig",
        Shape {
            texts: [Some(2), Some(3)],
            ..PLAIN
        },
    ),
    ("fsmount", PLAIN),
    ("fsopen", path(0)),
    ("init_module", text(2)),
    ("io_uring_setup", PLAIN),
    ("ioperm", PLAIN),
    ("iopl", PLAIN),
    ("kexec_file_load", text(3)),
    ("kexec_load", PLAIN),
    ("keyctl", PLAIN),
    ("memfd_create", path(0)),
    (
        "mount",
        Shape {
            texts: [Some(0), Some(2)],
            ..path(1)
        },
    ),
    ("mount_setattr", path(1)),
    (
        "move_mount",
        Shape {
            texts: [Some(1), None],
            ..path(3)
        },
    ),
    ("name_to_handle_at", path(1)),
    ("open", path(0)),
    ("open_by_handle_at", PLAIN),
    ("open_tree", path(1)),
    ("openat", path(1)),
    ("openat2", path(1)),
    ("perf_event_open", PLAIN),
    ("pidfd_getfd", PLAIN),
    (
        "pivot_root",
        Shape {
            texts: [Some(1), None],
            ..path(0)
        },
    ),
    ("prctl", PLAIN),
    ("process_vm_readv", PLAIN),
    ("process_vm_writev", PLAIN),
    ("ptrace", PLAIN),
    ("reboot", PLAIN),
    (
        "request_key",
        Shape {
            texts: [Some(0), Some(1)],
            ..PLAIN
        },
    ),
    ("seccomp", PLAIN),
    ("setgid", PLAIN),
    ("setns", PLAIN),
    ("setresgid", PLAIN),
    ("setresuid", PLAIN),
    ("setuid", PLAIN),
    ("socketcall", PLAIN),
    ("swapon", path(0)),
    ("umount2", path(0)),
    ("unshare", PLAIN),
    ("userfaultfd", PLAIN),
];

/// Of those, calls that programs make often and that do no harm as such. Who
/// makes many of them hides none of the others: room is kept for those.
const ORDINARY: &[&str] = &[
    "bind",
    "creat",
    "exit_group",
    "memfd_create",
    "name_to_handle_at",
    "open",
    "openat",
    "openat2",
    "prctl",
];

/// Whether room is kept for a rare call.
pub(crate) fn is_alarm(name: &str) -> bool {
    !ORDINARY.contains(&name)
}

/// Rare calls of one table of numbers. Those of programs with short pointers are
/// the machine's own, and some besides.
pub(crate) fn table(abi: SyscallAbi) -> HashMap<u32, Shape> {
    let of = |abi| {
        let known = RARE.iter();
        known.filter_map(move |(name, shape)| Some((names::number(abi, name)?, *shape)))
    };
    match abi {
        SyscallAbi::Native | SyscallAbi::I386 => of(abi).collect(),
        SyscallAbi::X32 => of(SyscallAbi::Native).chain(of(abi)).collect(),
    }
}

/// What the arguments of a call point to; nothing for one that is not rare.
pub(crate) fn shape(abi: SyscallAbi, number: u32) -> Shape {
    let name = names::name(abi, number);
    let rare = RARE.iter().find(|(rare, _)| *rare == name);
    rare.map_or(PLAIN, |(_, shape)| *shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_call_of_some_table() {
        for (name, _) in RARE {
            let number = names::number(SyscallAbi::Native, name)
                .or_else(|| names::number(SyscallAbi::I386, name));
            assert!(number.is_some(), "{name}");
        }
        assert_eq!(table(SyscallAbi::Native)[&257].path, Some(1));
        assert_eq!(table(SyscallAbi::I386)[&5].path, Some(0));
        assert_eq!(table(SyscallAbi::X32)[&257].path, Some(1));
        assert_eq!(table(SyscallAbi::X32)[&520].argv, Some(1));
    }
}
