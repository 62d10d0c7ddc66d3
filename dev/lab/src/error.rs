//! Why a lab or one of its sandboxes could not be had.

use std::io;

use sandtrace_sys::netns::NetnsError;

use crate::guest_binary::GuestMissing;
use crate::kernel::KernelMissing;

/// Why a lab could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, taps and mounts are for the administrator.
    #[error("a lab makes network namespaces, taps and mounts, which needs root: run it with sudo")]
    NotRoot,
    /// A program that Debian has a package for is not installed.
    #[error("{program} is missing; install it with: apt-get install {package}")]
    ProgramMissing {
        /// The program's name.
        program: &'static str,
        /// The Debian package.
        package: &'static str,
    },
    /// A program said no.
    #[error("{command}: {message}")]
    Command {
        /// The command line.
        command: String,
        /// What it wrote to standard error, or how it ended.
        message: String,
    },
    /// The operating system said no.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done to what.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// A network namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// There is no kernel to boot.
    #[error(transparent)]
    Kernel(#[from] KernelMissing),
    /// There is no guest program to run.
    #[error(transparent)]
    Guest(#[from] GuestMissing),
    /// A sandbox id that could be mistaken for something else on a command line.
    #[error(
        "sandbox id {0:?}: use 1 to 64 letters, digits, `.`, `_` or `-`, a letter or digit first"
    )]
    BadId(String),
    /// QEMU's control socket did not answer as agreed.
    #[error("QEMU's control socket: {0}")]
    Qmp(String),
    /// The sandbox ended before it had begun.
    #[error("{sandbox} ended at once: {console}")]
    Died {
        /// The sandbox id.
        sandbox: String,
        /// What it said last.
        console: String,
    },
    /// The sandbox still runs.
    #[error("{sandbox} did not end within {seconds} s; its console ends with:\n{console}")]
    Timeout {
        /// The sandbox id.
        sandbox: String,
        /// How long it was waited for.
        seconds: u64,
        /// What it said last.
        console: String,
    },
}

/// For `map_err`: what was being done when the operating system said no.
pub(crate) fn doing<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> LabError {
    move |error| LabError::Io {
        doing: what.into(),
        source: error.into(),
    }
}
