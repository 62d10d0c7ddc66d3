//! Why a sandbox cannot be attached to.

use crate::claims::quoted;
use crate::{DockerError, Problem, ProviderKind};
use sandtrace_sys::netns::NetnsError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A sandbox that was found, for the message that another one was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub sandbox_id: String,
    /// What kind of process it is.
    pub provider: ProviderKind,
    /// Its process.
    pub pid: u32,
}

/// Why no target came of an id or of what the operator gave.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The id cannot be part of a file name.
    #[error("{} cannot be a sandbox id: use 1 to 128 of A-Z a-z 0-9 . _ -", quoted(.id))]
    InvalidId {
        /// As it was given.
        id: String,
    },
    /// The agent's id is empty, too long, or holds spaces or control characters.
    #[error("{} cannot be an agent id: use 1 to 128 printable ASCII characters without spaces", quoted(.id))]
    InvalidAgentId {
        /// As it was given.
        id: String,
    },
    /// Processes cannot be listed.
    #[error("list processes: {source}")]
    List {
        /// The cause.
        source: io::Error,
    },
    /// No VMM on this host has this id.
    #[error("no sandbox {} on this host; {}{}", quoted(.id), Listed(.found), Unseen(.problems))]
    Unknown {
        /// As it was given.
        id: String,
        /// Those that there are.
        found: Vec<Found>,
        /// What could not be looked at, where it may be.
        problems: Vec<Problem>,
    },
    /// Several VMMs have this id.
    #[error("sandbox id {} is ambiguous: processes {pids:?} have it; choose one by its pid", quoted(.id))]
    Ambiguous {
        /// As it was given.
        id: String,
        /// Their processes.
        pids: Vec<u32>,
    },
    /// It ended while it was looked at.
    #[error("sandbox {} (pid {pid}) ended while it was looked at", quoted(.id))]
    Ended {
        /// Its id.
        id: String,
        /// Its process.
        pid: u32,
    },
    /// Docker does not say whether a process is still its container's.
    #[error("container {}: Docker does not say whether process {pid} is still its: {why}", quoted(.id))]
    Unconfirmed {
        /// Its id.
        id: String,
        /// Its process.
        pid: u32,
        /// Why not.
        why: DockerError,
    },
    /// Neither process, interface, disk nor overlay was given.
    #[error("nothing to watch was given: name a process, an interface, a disk or an overlay")]
    NothingGiven,
    /// The process does not exist or cannot be looked at.
    #[error("look at process {pid}: {source}")]
    Process {
        /// Its id.
        pid: u32,
        /// The cause.
        source: io::Error,
    },
    /// The namespace does not exist or cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// There is no such interface.
    #[error("no interface {} in {place}", quoted(.interface))]
    NoInterface {
        /// Its name.
        interface: String,
        /// Namespace that was searched.
        place: String,
    },
    /// Interfaces cannot be asked for.
    #[error("look up interface {}: {source}", quoted(.interface))]
    Interface {
        /// Its name.
        interface: String,
        /// The cause.
        source: io::Error,
    },
    /// A disk or an overlay cannot be opened.
    #[error("open {what} {path}: {source}")]
    Disk {
        /// `disk` or `overlay upper dir`.
        what: &'static str,
        /// As it was given.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A disk or an overlay is another kind of file.
    #[error("{what} {path} is not a {expected}")]
    DiskKind {
        /// `disk` or `overlay upper dir`.
        what: &'static str,
        /// As it was given.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
}

impl FindError {
    /// Whether a capability is missing rather than the thing itself.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let source = match self {
            Self::List { source }
            | Self::Process { source, .. }
            | Self::Interface { source, .. }
            | Self::Disk { source, .. }
            | Self::Netns(NetnsError::Open { source, .. } | NetnsError::Enter { source, .. }) => {
                source
            }
            _ => return false,
        };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// A bounded list of what could not be looked at.
struct Unseen<'a>(&'a [Problem]);

impl fmt::Display for Unseen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        for problem in self.0.iter().take(SHOWN) {
            write!(f, "; {problem}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more could not be looked at"),
        }
    }
}

/// A bounded list of what was found.
struct Listed<'a>(&'a [Found]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        if self.0.is_empty() {
            return f.write_str("no Firecracker, Cloud Hypervisor, QEMU or libkrun process and no Daytona container was found");
        }
        f.write_str("found: ")?;
        for (n, found) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            let Found {
                sandbox_id,
                provider,
                pid,
            } = found;
            write!(f, "{comma}{sandbox_id} ({provider}, pid {pid})")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
