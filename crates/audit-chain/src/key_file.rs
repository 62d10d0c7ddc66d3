//! A host's signing key in a file that only its owner can read.

use crate::note::{KeyError, SigningKey};
use crate::segments::beside;
use rustix::process::geteuid;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest file that is read.
const MAX_BYTES: u64 = 4096;

/// Why a key cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is a key already; it is never overwritten.
    #[error("key {path} exists")]
    Exists {
        /// Path of the key.
        path: PathBuf,
    },
    /// There is no key.
    #[error("key {path} does not exist")]
    Missing {
        /// Path of the key.
        path: PathBuf,
    },
    /// Others can read or change it, so it proves nothing.
    #[error(
        "key {path} has mode {mode:04o} and belongs to user {owner}: \
         only its owner may have access, as after `chmod 600`"
    )]
    Exposed {
        /// Path of the key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's user id.
        owner: u32,
    },
    /// The file is no key.
    #[error("key {path}")]
    Key {
        /// Path of the key.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The system refused.
    #[error("{doing} key {path}")]
    Io {
        /// What was being done to the key.
        doing: &'static str,
        /// Path of the key.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the key in a file: the text form of a signing key on one line.
///
/// # Errors
/// There is none, others have access to it, or it is no key.
pub fn load(path: &Path) -> Result<SigningKey, KeyFileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NO_FOLLOW)
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeyFileError::Missing {
                path: path.to_owned(),
            },
            _ => failure("opening", path, source),
        })?;
    check_access(&file, path)?;
    // Room for all of it, so that no copy is left behind by a larger buffer.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|source| failure("reading", path, source))?;
    let key = text.strip_suffix('\n').unwrap_or(&text);
    SigningKey::parse(key).map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Writes a new key file (mode 0600) and makes it durable. Nobody ever sees a
/// part of it: it is written under another name.
///
/// # Errors
/// The path is taken, or the file cannot be written; nothing is left of it
/// then.
pub fn create(path: &Path, key: &SigningKey) -> Result<(), KeyFileError> {
    let draft = beside(path, &format!(".{}", std::process::id()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(|source| failure("creating", path, source))?;
    let written = write(&file, key)
        .map_err(|source| failure("writing", path, source))
        .and_then(|()| {
            std::fs::hard_link(&draft, path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => KeyFileError::Exists {
                    path: path.to_owned(),
                },
                _ => failure("creating", path, source),
            })
        });
    // What was written under its own name is no longer needed; what was not
    // must not stay. The error above says what matters.
    let _ = std::fs::remove_file(&draft);
    written?;
    crate::writer::sync_directory_of(path).map_err(|source| failure("writing", path, source))
}

fn write(mut file: &File, key: &SigningKey) -> io::Result<()> {
    file.write_all(key.to_secret_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn check_access(file: &File, path: &Path) -> Result<(), KeyFileError> {
    let metadata = file
        .metadata()
        .map_err(|source| failure("looking at", path, source))?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let is_own = owner == geteuid().as_raw() || owner == 0;
    if metadata.is_file() && mode & 0o077 == 0 && is_own {
        return Ok(());
    }
    Err(KeyFileError::Exposed {
        path: path.to_owned(),
        mode,
        owner,
    })
}

/// A link in the key's place could lead to somebody else's file.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

fn failure(doing: &'static str, path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
