//! Why a thread cannot be traced.

use crate::pidns;
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
    #[error("trace thread {tid}: thread {tracer} traces it already (a debugger, strace?)")]
    Traced {
        /// The thread.
        tid: u32,
        /// The thread that traces it.
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
    /// It is refused though this process may trace others.
    #[error(
        "trace thread {tid}: refused in spite of CAP_SYS_PTRACE (by a security module, or it has a tracer outside of this PID namespace)"
    )]
    Refused {
        /// The thread.
        tid: u32,
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

/// `CAP_SYS_PTRACE` of linux/capability.h, as a bit of `CapEff:`.
const CAPABLE: u64 = 1 << 19;

pub(super) fn explain(tid: u32, error: io::Error) -> AttachError {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let found = Found::parse(
        &read(&format!("/proc/{tid}/status")),
        &read("/proc/self/status"),
        &read("/proc/sys/kernel/yama/ptrace_scope"),
        pidns::proc_is_ours(),
    );
    found.explain(tid, error)
}

/// What can be the cause of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// It has ended, also where its parent has not noticed yet.
    ended: bool,
    /// The thread that traces it; 0 for none.
    tracer: u32,
    /// Whether this process has the capability.
    capable: bool,
    /// `kernel.yama.ptrace_scope`; 0 without Yama.
    scope: u32,
    /// Whether ids in `/proc` are those of this PID namespace.
    ours: bool,
}

impl Found {
    /// From `/proc/TID/status`, `/proc/self/status` and Yama's setting.
    fn parse(status: &str, own: &str, scope: &str, ours: bool) -> Self {
        fn field<'a>(status: &'a str, name: &str) -> &'a str {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim()
        }
        let capabilities = u64::from_str_radix(field(own, "CapEff:"), 16);
        Self {
            ended: status.is_empty() || field(status, "State:").starts_with(['Z', 'X']),
            tracer: field(status, "TracerPid:").parse().unwrap_or_default(),
            capable: capabilities.is_ok_and(|mask| mask & CAPABLE != 0),
            scope: scope.trim().parse().unwrap_or_default(),
            ours,
        }
    }

    /// The kernel says `EPERM` for many different things and `ESRCH` for two.
    fn explain(self, tid: u32, error: io::Error) -> AttachError {
        match (error.raw_os_error(), self) {
            (Some(libc::ESRCH | libc::EPERM), Self { ours: false, .. }) => {
                AttachError::ForeignNamespace { tid }
            }
            (Some(libc::ESRCH), _) | (Some(libc::EPERM), Self { ended: true, .. }) => {
                AttachError::Ended { tid }
            }
            (Some(libc::EPERM), Self { tracer, .. }) if tracer != 0 => {
                AttachError::Traced { tid, tracer }
            }
            (Some(libc::EPERM), Self { scope: 3, .. }) => AttachError::Yama { tid },
            (Some(libc::EPERM), Self { capable: true, .. }) => AttachError::Refused { tid },
            (Some(libc::EPERM), Self { scope, .. }) => AttachError::NotPermitted {
                tid,
                hint: match scope {
                    0 => "",
                    _ => "; kernel.yama.ptrace_scope asks for it of everybody",
                },
            },
            _ => AttachError::Other { tid, source: error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A status as the kernel writes it, as far as it is read.
    fn status(state: &str, tracer: u32) -> String {
        format!("Name:\tx\nState:\t{state}\nTgid:\t7\nTracerPid:\t{tracer}\n")
    }

    const ROOT: &str = "Name:\tx\nCapEff:\t000001ffffffffff\n";
    const NOBODY: &str = "Name:\tx\nCapEff:\t0000000000000000\n";
    const SLEEPS: &str = "S (sleeping)";

    #[track_caller]
    fn check(errno: i32, status: &str, own: &str, scope: &str, expected: &str) {
        let found = Found::parse(status, own, scope, true);
        let error = found.explain(7, io::Error::from_raw_os_error(errno));
        assert_eq!(error.to_string(), format!("trace thread 7: {expected}"));
    }

    const ENDED: &str = "it has ended";
    const TRACED: &str = "thread 42 traces it already (a debugger, strace?)";
    const YAMA: &str = "kernel.yama.ptrace_scope is 3, which forbids ptrace until the next boot";
    const PLAIN: &str = "not permitted (needs CAP_SYS_PTRACE: run as root)";
    const SCOPED: &str = "not permitted (needs CAP_SYS_PTRACE: run as root); \
        kernel.yama.ptrace_scope asks for it of everybody";
    const REFUSED: &str = "refused in spite of CAP_SYS_PTRACE (by a security module, or it \
        has a tracer outside of this PID namespace)";

    #[test]
    fn a_refusal_is_explained_by_what_is_found() {
        let (free, traced) = (status(SLEEPS, 0), status(SLEEPS, 42));
        let zombie = status("Z (zombie)", 0);
        let (eperm, esrch) = (libc::EPERM, libc::ESRCH);
        check(esrch, "", ROOT, "", ENDED);
        check(esrch, &free, ROOT, "0\n", ENDED);
        check(eperm, "", ROOT, "1\n", ENDED);
        check(eperm, &zombie, ROOT, "3\n", ENDED);
        check(eperm, &status("X (dead)", 0), NOBODY, "", ENDED);
        for scope in ["", "0\n", "1\n", "2\n", "3\n"] {
            check(eperm, &traced, ROOT, scope, TRACED);
            check(eperm, &traced, NOBODY, scope, TRACED);
        }
        check(eperm, &free, ROOT, "3\n", YAMA);
        check(eperm, &free, NOBODY, "3\n", YAMA);
        check(eperm, &free, NOBODY, "2\n", SCOPED);
        check(eperm, &free, NOBODY, "1\n", SCOPED);
        check(eperm, &free, NOBODY, "0\n", PLAIN);
        check(eperm, &free, NOBODY, "", PLAIN);
        check(eperm, &free, ROOT, "2\n", REFUSED);
        check(eperm, &free, ROOT, "", REFUSED);
        let other = io::Error::from_raw_os_error(libc::EIO).to_string();
        check(libc::EIO, &free, ROOT, "3\n", &other);
    }

    #[test]
    fn ids_of_another_namespace_explain_everything() {
        for (errno, status) in [
            (libc::ESRCH, String::new()),
            (libc::EPERM, status(SLEEPS, 42)),
        ] {
            let found = Found::parse(&status, ROOT, "3\n", false);
            let error = found.explain(7, io::Error::from_raw_os_error(errno));
            assert!(
                matches!(error, AttachError::ForeignNamespace { tid: 7 }),
                "{error}"
            );
        }
    }
}
