//! Why a thread cannot be traced.

use std::fs;
use std::io;

/// Why a thread cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It has ended, also where its parent has not noticed yet.
    #[error("trace thread {tid}: it has ended")]
    Ended {
        /// The thread.
        tid: u32,
    },
    /// Somebody else traces it: a thread has one tracer at most.
    #[error("trace thread {tid}: process {tracer} traces it already (a debugger, strace?)")]
    Traced {
        /// The thread.
        tid: u32,
        /// The thread that traces it; 0 where it is outside of our PID namespace.
        tracer: u32,
    },
    /// It is a child of this very process, whose other threads would take its
    /// stops for its end when they wait for it.
    #[error("trace thread {tid}: this program started it itself and cannot trace it too")]
    OwnChild {
        /// The thread.
        tid: u32,
    },
    /// The Yama security module forbids it to everybody.
    #[error(
        "trace thread {tid}: kernel.yama.ptrace_scope is 3, which forbids ptrace until the next boot"
    )]
    Yama {
        /// The thread.
        tid: u32,
    },
    /// A capability is missing.
    #[error("trace thread {tid}: not permitted (needs CAP_SYS_PTRACE: run as root){hint}")]
    NotPermitted {
        /// The thread.
        tid: u32,
        /// What else can be the cause.
        hint: &'static str,
    },
    /// `/proc` shows another PID namespace, so that ids mean other processes.
    #[error(
        "trace thread {tid}: /proc is that of another PID namespace (mount the own one's, or run in that)"
    )]
    ForeignNamespace {
        /// The thread.
        tid: u32,
    },
    /// Any other refusal.
    #[error("trace thread {tid}: {source}")]
    Other {
        /// The thread.
        tid: u32,
        /// The cause.
        source: io::Error,
    },
}

/// Refuses a child of this process.
pub(super) fn check_parent(tid: u32) -> Result<(), AttachError> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    if parent.and_then(|parent| parent.trim().parse().ok()) == Some(std::process::id()) {
        return Err(AttachError::OwnChild { tid });
    }
    Ok(())
}

/// The kernel says `EPERM` for four different things and `ESRCH` for two.
pub(super) fn explain(tid: u32, error: io::Error) -> AttachError {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim()
    };
    let ended = status.is_empty() || field("State:").starts_with(['Z', 'X']);
    match error.raw_os_error() {
        Some(libc::ESRCH) => AttachError::Ended { tid },
        Some(libc::EPERM) if ended => AttachError::Ended { tid },
        Some(libc::EPERM) => {
            let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
            let scope = yama.unwrap_or_default();
            match (field("TracerPid:"), scope.trim()) {
                ("0" | "", "3") => AttachError::Yama { tid },
                ("0" | "", "1" | "2") => AttachError::NotPermitted {
                    tid,
                    hint: "; kernel.yama.ptrace_scope asks for it of everybody",
                },
                ("0" | "", _) => AttachError::NotPermitted { tid, hint: "" },
                (tracer, _) => AttachError::Traced {
                    tid,
                    tracer: tracer.parse().unwrap_or_default(),
                },
            }
        }
        _ => AttachError::Other { tid, source: error },
    }
}
