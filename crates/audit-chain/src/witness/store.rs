//! What a witness remembers: one small file per log, replaced as a whole.
//!
//! ```text
//! sandtrace/witness-state/v1
//! key <vkey>                   the trail's key of now, of a log of a host
//! session <64 hex digits>      SHA-256 of each public key that a host certified
//!
//! <the newest checkpoint, with the witness's signature; or nothing>
//! ```

use crate::checkpoint::Checkpoint;
use crate::note::{Note, VerifierKey};
use crate::writer::sync_directory_of;
use rustix::fs::{FlockOperation, flock};
use sandtrace_event::Digest;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why a witness cannot remember.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("{path} is in use by another witness")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file of state is not what was written.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system refused.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory of a witness's state, for this process alone.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Held for its lock.
    _lock: File,
}

/// What is remembered of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Present in logs that a host has certified.
    pub(super) key: Option<VerifierKey>,
    /// Hashes of the keys that a host has certified, the oldest first.
    pub(super) sessions: Vec<Digest>,
    /// The newest checkpoint, cosigned.
    pub(super) newest: Option<(Checkpoint, Note)>,
}

/// Most restarts of one trail.
pub(super) const MAX_SESSIONS: usize = 4096;

/// Longest file: keys of many sessions and a note.
const MAX_BYTES: u64 = 512 * 1024;

const TITLE: &str = "sandtrace/witness-state/v1";

impl Store {
    /// Opens a directory, which is made where there is none.
    ///
    /// # Errors
    /// It cannot be used, or another process uses it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(failed("making", folder))?;
        let path = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            let path = folder.to_owned();
            match errno {
                rustix::io::Errno::WOULDBLOCK => StoreError::Locked { path },
                errno => failed("locking", folder)(errno.into()),
            }
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// How many logs are remembered.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn count(&self) -> Result<usize, StoreError> {
        let failed = || failed("reading", &self.folder);
        let mut count = 0;
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            count += usize::from(name.to_string_lossy().ends_with(SUFFIX));
        }
        Ok(count)
    }

    /// What is remembered of a log.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(super) fn load(&self, origin: &str) -> Result<Option<Memory>, StoreError> {
        let path = self.path(origin);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed("opening", &path))?,
        };
        let mut text = String::new();
        file.take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(failed("reading", &path))?;
        let memory = parse(&text, origin);
        memory
            .map(Some)
            .map_err(|what| StoreError::Damaged { path, what })
    }

    /// Remembers this of a log instead of what was there, and is sure of it.
    ///
    /// # Errors
    /// It could not be made durable.
    pub(super) fn save(&self, origin: &str, memory: &Memory) -> Result<(), StoreError> {
        let path = self.path(origin);
        let fresh = path.with_extension("new");
        let write = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(print(memory).as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            sync_directory_of(&path)
        };
        write().map_err(failed("writing", &path))
    }

    /// Origins are chosen by others; file names are not.
    fn path(&self, origin: &str) -> PathBuf {
        let mut name = String::new();
        for byte in Sha256::digest(origin) {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        self.folder.join(name + SUFFIX)
    }
}

const SUFFIX: &str = ".log";

fn print(memory: &Memory) -> String {
    let mut text = format!("{TITLE}\n");
    if let Some(key) = &memory.key {
        text += &format!("key {key}\n");
    }
    for session in &memory.sessions {
        text += &format!("session {session}\n");
    }
    text.push('\n');
    if let Some((_, note)) = &memory.newest {
        text += &note.to_string();
    }
    text
}

fn parse(text: &str, origin: &str) -> Result<Memory, &'static str> {
    let (head, note) = text.split_once("\n\n").ok_or("it has no empty line")?;
    let mut lines = head.split('\n');
    if lines.next() != Some(TITLE) {
        return Err("it has another title");
    }
    let mut memory = Memory::default();
    for line in lines {
        if let Some(key) = line.strip_prefix("key ") {
            let key: VerifierKey = key.parse().map_err(|_| "its key cannot be read")?;
            memory.key = Some(key);
        } else if let Some(session) = line.strip_prefix("session ") {
            let session = session.parse().map_err(|_| "a session cannot be read")?;
            memory.sessions.push(session);
        } else {
            return Err("it has a line of another kind");
        }
    }
    if !note.is_empty() {
        let note = Note::parse(note.as_bytes()).map_err(|_| "its checkpoint is no note")?;
        let checkpoint: Checkpoint = note
            .text()
            .parse()
            .map_err(|_| "its checkpoint cannot be read")?;
        if checkpoint.origin() != origin {
            return Err("its checkpoint is another log's");
        }
        memory.newest = Some((checkpoint, note));
    }
    let names = memory.key.iter().map(VerifierKey::name);
    if names.clone().any(|name| name != origin) {
        return Err("its key is another log's");
    }
    if memory.key.is_none() && memory.newest.is_none() {
        return Err("it says nothing");
    }
    Ok(memory)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        doing,
        path,
        source,
    }
}
