//! The file under a trail, behind a seam so that tests can make it fail.

use super::WriteError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a writer does to its file.
pub(super) trait Store: Send {
    /// One write at the end of the file; may take only a part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

/// A file that this process made, locked against other writers.
pub(super) struct FileStore {
    file: File,
    path: PathBuf,
}

impl FileStore {
    pub(super) fn create(path: &Path) -> Result<Self, WriteError> {
        let failed = |doing| {
            let path = path.to_owned();
            move |source| WriteError::Io {
                doing,
                path,
                source,
            }
        };
        let opened = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists {
                path: path.to_owned(),
            },
            _ => failed("creating")(source),
        })?;
        let store = Self {
            file,
            path: path.to_owned(),
        };
        flock(&store.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed("locking")(errno.into()))?;
        sync_directory_of(path).map_err(failed("making durable the name of"))?;
        Ok(store)
    }

    /// Whether the file is empty and the path still names it.
    fn is_unused(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        let named = fs::symlink_metadata(&self.path)?;
        Ok(own.len() == 0 && (own.dev(), own.ino()) == (named.dev(), named.ino()))
    }
}

impl Store for FileStore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

impl Drop for FileStore {
    /// An empty file is no trail; left behind it would only be in the way.
    fn drop(&mut self) {
        if matches!(self.is_unused(), Ok(true)) {
            // Where this fails the empty file stays, which verify calls empty.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new name is durable once its directory is.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
