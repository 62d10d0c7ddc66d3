//! Doing one thing inside a network namespace.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Why something could not be done inside a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The namespace's file could not be opened.
    #[error("open network namespace {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel did not let the thread in.
    #[error("enter network namespace {path}: {source}")]
    Enter {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The thread could not be made or did not end in order.
    #[error("thread for network namespace {path}: {detail}")]
    Thread {
        /// The file.
        path: PathBuf,
        /// What happened.
        detail: String,
    },
}

/// Where iproute2 keeps named namespaces.
pub const NAMED: &str = "/run/netns";

/// The file of a namespace: a path as it stands, a bare name below [`NAMED`].
#[must_use]
pub fn path_of(name_or_path: &str) -> PathBuf {
    if name_or_path.contains('/') {
        PathBuf::from(name_or_path)
    } else {
        Path::new(NAMED).join(name_or_path)
    }
}

/// How messages call a namespace.
pub(crate) fn describe(namespace: Option<&Path>) -> String {
    namespace.map_or_else(
        || "this network namespace".to_owned(),
        |path| format!("network namespace {}", path.display()),
    )
}

/// Runs `work` on a thread of its own inside the namespace, or right here
/// where there is none to enter. Sockets and `/proc/thread-self/net` files
/// opened by `work` stay bound to that namespace wherever they are used.
///
/// # Errors
/// When the namespace cannot be opened or entered.
pub fn within<T: Send>(
    namespace: Option<&Path>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    let Some(path) = namespace else {
        return Ok(work());
    };
    let file = File::open(path).map_err(|source| NetnsError::Open {
        path: path.to_owned(),
        source,
    })?;
    let thread_failed = |detail| NetnsError::Thread {
        path: path.to_owned(),
        detail,
    };
    std::thread::scope(|scope| {
        let inside = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok::<T, rustix::io::Errno>(work())
        };
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, inside)
            .map_err(|error| thread_failed(error.to_string()))?;
        match thread.join() {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(errno)) => Err(NetnsError::Enter {
                path: path.to_owned(),
                source: errno.into(),
            }),
            Err(_) => Err(thread_failed("panicked".to_owned())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        assert_eq!(path_of("fc0"), Path::new("/run/netns/fc0"));
        assert_eq!(path_of("/proc/7/ns/net"), Path::new("/proc/7/ns/net"));
    }

    #[test]
    fn a_missing_namespace_is_named() {
        let error = within(Some(Path::new("/run/netns/none-such")), || ()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("open network namespace /run/netns/none-such: ")
        );
    }

    #[test]
    fn no_namespace_runs_here() {
        let here = std::thread::current().id();
        assert_eq!(within(None, || std::thread::current().id()).unwrap(), here);
    }
}
