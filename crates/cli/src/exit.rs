//! Exit codes are documented API (docs/exit-codes.md).

use std::process::ExitCode;

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for `verify`, the trail is valid and breaks no rule.
    Success,
    /// The trail was changed after it was written.
    Tampered,
    /// The trail stops before its end.
    Incomplete,
    /// Nobody who is trusted has signed the trail as far as that is required.
    Untrusted,
    /// The trail is malformed, or an input cannot be read.
    Malformed,
    /// The trail is intact, but events in it break the policy.
    Violations,
    /// The command line is wrong (EX_USAGE).
    Usage,
    /// A policy does not load (EX_DATAERR).
    Policy,
    /// No such sandbox, interface, disk or process (EX_UNAVAILABLE).
    Unavailable,
    /// A bug of ours (EX_SOFTWARE).
    Internal,
    /// The trail or another output cannot be created (EX_CANTCREAT).
    CannotCreate,
    /// Writing failed: a full disk, a failing device (EX_IOERR).
    Io,
    /// The process lacks a capability (EX_NOPERM).
    NoPermission,
    /// The settings file or a variable is wrong (EX_CONFIG).
    Config,
}

impl Exit {
    /// The number.
    #[must_use]
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Tampered => 1,
            Self::Incomplete => 2,
            Self::Untrusted => 3,
            Self::Malformed => 4,
            Self::Violations => 5,
            Self::Usage => 64,
            Self::Policy => 65,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::CannotCreate => 73,
            Self::Io => 74,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error with the exit code that it ends the process with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// What to print, on one line where possible.
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// An error of which the text is all there is to say.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            error: anyhow::Error::msg(message.into()),
        }
    }
}

impl Failure {
    /// The process lacks a capability.
    pub(crate) fn not_permitted(error: &dyn std::error::Error, capability: &str) -> Self {
        let message = format!(
            "{error} (needs {capability}: run as root, or grant it with \
             `setcap cap_net_raw,cap_sys_admin,cap_sys_ptrace+ep` on the sandtrace binary)"
        );
        Self::new(Exit::NoPermission, message)
    }
}

/// Gives an error the exit code that it ends the process with.
pub(crate) trait OrExit<T> {
    /// # Errors
    /// The error, with `exit`.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            exit,
            error: error.into(),
        })
    }
}
