//! What a tracee stopped for.

/// Size of `struct ptrace_syscall_info` (linux/ptrace.h) as far as it is used.
pub(super) const INFO_BYTES: usize = 88;

/// Why a tracee stopped, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It enters or leaves a system call.
    Syscall,
    /// A signal is about to be delivered.
    Signal(i32),
    /// It is stopped by job control; not to be resumed.
    Group,
    /// It was asked to stop, is new, or was continued.
    Interrupted,
    /// It started a thread or process of this id.
    Started(u32),
    /// It executed a program; it had this id before.
    Executed(u32),
    /// It is about to end, with this status as wait(2) has it.
    Exiting(i32),
    /// Any other stop.
    Other,
    /// It is gone.
    Gone,
}

/// Where a thread is in a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallStop {
    /// It enters.
    Entry {
        /// `AUDIT_ARCH_*` of the call (linux/audit.h).
        arch: u32,
        /// Its number in the table of that architecture.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// It leaves.
    Exit {
        /// What it returns; an error as a negative number, also those above
        /// 511 that the kernel keeps for itself.
        value: i64,
        /// Whether that is an error.
        is_error: bool,
    },
    /// In none.
    None,
}

pub(super) fn parse(status: libc::c_int, message: impl FnOnce() -> u64) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Gone;
    }
    let signal = libc::WSTOPSIG(status);
    let id = |message: u64| u32::try_from(message).unwrap_or_default();
    match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
            Stop::Started(id(message()))
        }
        libc::PTRACE_EVENT_EXEC => Stop::Executed(id(message())),
        libc::PTRACE_EVENT_EXIT => Stop::Exiting(i32::try_from(message()).unwrap_or_default()),
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Stop::Interrupted,
        libc::PTRACE_EVENT_STOP => Stop::Group,
        _ => Stop::Other,
    }
}

/// `struct ptrace_syscall_info`: op, arch, instruction and stack pointer,
/// then number and arguments, or value and error flag.
pub(super) fn parse_info(info: &[u8; INFO_BYTES]) -> SyscallStop {
    let word = |at: usize| -> u64 {
        let bytes = info.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    let arch = info.get(4..8).and_then(|bytes| bytes.try_into().ok());
    match info.first() {
        // PTRACE_SYSCALL_INFO_ENTRY
        Some(1) => SyscallStop::Entry {
            arch: arch.map_or(0, u32::from_ne_bytes),
            number: word(24),
            arguments: [32, 40, 48, 56, 64, 72].map(word),
        },
        // PTRACE_SYSCALL_INFO_EXIT
        Some(2) => SyscallStop::Exit {
            value: word(24).cast_signed(),
            is_error: info.get(32).is_some_and(|flag| *flag != 0),
        },
        _ => SyscallStop::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: i32, expected: Stop) {
        assert_eq!(parse(status, || 42), expected, "{status:#x}");
    }

    #[test]
    fn statuses() {
        let stopped = |signal: i32, event: i32| 0x7f | (signal << 8) | (event << 16);
        check(0, Stop::Gone);
        check(9, Stop::Gone);
        check(stopped(5 | 0x80, 0), Stop::Syscall);
        check(stopped(11, 0), Stop::Signal(11));
        check(stopped(5, 0), Stop::Signal(5));
        check(stopped(5, 1), Stop::Started(42));
        check(stopped(5, 3), Stop::Started(42));
        check(stopped(5, 4), Stop::Executed(42));
        check(stopped(5, 6), Stop::Exiting(42));
        check(stopped(5, 128), Stop::Interrupted);
        check(stopped(19, 128), Stop::Group);
        check(stopped(5, 7), Stop::Other);
    }

    #[test]
    fn syscall_info() {
        let mut info = [0; INFO_BYTES];
        info[0] = 1;
        info[4..8].copy_from_slice(&0xc000_003e_u32.to_ne_bytes());
        info[24..32].copy_from_slice(&257_u64.to_ne_bytes());
        info[40..48].copy_from_slice(&7_u64.to_ne_bytes());
        let entry = SyscallStop::Entry {
            arch: 0xc000_003e,
            number: 257,
            arguments: [0, 7, 0, 0, 0, 0],
        };
        assert_eq!(parse_info(&info), entry);
        info[0] = 2;
        info[24..32].copy_from_slice(&(-512_i64).to_ne_bytes());
        info[32] = 1;
        let exit = SyscallStop::Exit {
            value: -512,
            is_error: true,
        };
        assert_eq!(parse_info(&info), exit);
        assert_eq!(parse_info(&[0; INFO_BYTES]), SyscallStop::None);
    }
}
