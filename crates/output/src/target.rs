//! Where events go, as an operator writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A place that takes events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A new file, or an existing pipe or device.
    File(PathBuf),
    /// A listening stream socket.
    Unix(PathBuf),
}

/// Longest path of a socket in bytes: `sun_path` less its NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// Nothing was given.
    #[error("empty output: use - (standard output), FILE or unix:///PATH")]
    Empty,
    /// A URL that this program does not speak.
    #[error("output scheme {0:?} is not known: use - (standard output), FILE or unix:///PATH")]
    Scheme(String),
    /// `unix:` without an absolute path.
    #[error("unix output needs an absolute path: unix:///run/collector.sock")]
    RelativeSocket,
    /// The kernel takes no socket path of this length.
    #[error("path of a unix output is {0} bytes long, the system takes {MAX_SOCKET_PATH}")]
    LongSocket(usize),
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, ParseTargetError> {
        if text.is_empty() {
            return Err(ParseTargetError::Empty);
        }
        if text == "-" {
            return Ok(Self::Stdout);
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            return socket(rest);
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(ParseTargetError::Scheme(scheme.to_owned())),
            None => Ok(Self::File(text.into())),
        }
    }
}

fn socket(rest: &str) -> Result<Target, ParseTargetError> {
    let path = rest
        .strip_prefix("//")
        .filter(|path| path.len() > 1 && path.starts_with('/'))
        .ok_or(ParseTargetError::RelativeSocket)?;
    if path.len() > MAX_SOCKET_PATH {
        return Err(ParseTargetError::LongSocket(path.len()));
    }
    Ok(Target::Unix(path.into()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &Result<Target, ParseTargetError>) {
        assert_eq!(&text.parse(), expected, "{text:?}");
    }

    #[test]
    fn targets() {
        check("-", &Ok(Target::Stdout));
        check("out.jsonl", &Ok(Target::File("out.jsonl".into())));
        check("./-", &Ok(Target::File("./-".into())));
        check("unix:///run/s", &Ok(Target::Unix("/run/s".into())));
    }

    #[test]
    fn what_is_no_target_says_what_would_be() {
        check("", &Err(ParseTargetError::Empty));
        check("unix://", &Err(ParseTargetError::RelativeSocket));
        check("unix:///", &Err(ParseTargetError::RelativeSocket));
        check("unix:/run/s", &Err(ParseTargetError::RelativeSocket));
        check("unix://run/s", &Err(ParseTargetError::RelativeSocket));
        check(
            "tcp://h:1",
            &Err(ParseTargetError::Scheme("tcp".to_owned())),
        );
        let long = format!("unix:///{}", "s".repeat(107));
        check(&long, &Err(ParseTargetError::LongSocket(108)));
    }
}
