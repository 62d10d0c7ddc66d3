//! The files under a trail, behind a seam so that tests can make them fail.

use super::WriteError;
use crate::segments::beside;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a writer does to its files, each a step after which a crash may come.
pub(super) trait Store: Send {
    /// One write at the end of the file; may take only a part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes the file `path`, into which everything goes from here.
    fn next_segment(&mut self, path: &Path) -> io::Result<()>;
    /// Removes the file `path`, of which nothing counts.
    fn discard(&mut self, path: &Path) -> io::Result<()>;
    /// Writes what is to replace the file `path`, durably, beside it.
    fn write_replacement(&mut self, path: &Path, text: &str) -> io::Result<()>;
    /// Puts the replacement in the place of the file `path`.
    fn replace(&mut self, path: &Path) -> io::Result<()>;
    /// Makes the names in the directory of `path` durable.
    fn sync_directory(&mut self, path: &Path) -> io::Result<()>;
}

/// Files that this process alone writes: the trail's first one is locked as
/// long as this lives.
pub(super) struct FileStore {
    first: File,
    /// The file that is written, where it is not the first.
    later: Option<File>,
    path: PathBuf,
    /// Whether this made the first file.
    made: bool,
}

impl FileStore {
    /// Makes the first file (mode 0600) and makes its name durable.
    pub(super) fn create(path: &Path) -> Result<Self, WriteError> {
        let opened = new_file(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists {
                path: path.to_owned(),
            },
            _ => failed("creating", path)(source),
        })?;
        let mut store = Self::locked(opened, path)?;
        store.made = true;
        sync_directory_of(path).map_err(failed("making durable the name of", path))?;
        Ok(store)
    }

    /// Takes the files of a trail that is there; `last` is the one to append to.
    pub(super) fn open(path: &Path, last: &Path) -> Result<Self, WriteError> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            let options = options.append(true).read(true).custom_flags(NO_FOLLOW);
            options.open(path).map_err(failed("opening", path))
        };
        let mut store = Self::locked(open(path)?, path)?;
        if last != path {
            store.later = Some(open(last)?);
        }
        Ok(store)
    }

    fn locked(first: File, path: &Path) -> Result<Self, WriteError> {
        match flock(&first, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                first,
                later: None,
                path: path.to_owned(),
                made: false,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(WriteError::Locked {
                path: path.to_owned(),
            }),
            Err(errno) => Err(failed("locking", path)(errno.into())),
        }
    }

    fn file(&mut self) -> &mut File {
        self.later.as_mut().unwrap_or(&mut self.first)
    }

    /// Whether the first file is empty and the path still names it.
    fn is_unused(&self) -> io::Result<bool> {
        let own = self.first.metadata()?;
        let named = fs::symlink_metadata(&self.path)?;
        Ok(own.len() == 0 && (own.dev(), own.ino()) == (named.dev(), named.ino()))
    }
}

impl Store for FileStore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file().sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.file().set_len(bytes)
    }

    fn next_segment(&mut self, path: &Path) -> io::Result<()> {
        self.later = Some(new_file(path)?);
        sync_directory_of(path)
    }

    fn discard(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn write_replacement(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(replacement_of(path))?;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    }

    fn replace(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(replacement_of(path), path)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        sync_directory_of(path)
    }
}

impl Drop for FileStore {
    /// An empty file is no trail; left behind it would only be in the way.
    /// What was there before is not ours to remove, whatever it is.
    fn drop(&mut self) {
        if self.made && matches!(self.is_unused(), Ok(true)) {
            // Where this fails the empty file stays, which verify calls empty.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn replacement_of(path: &Path) -> PathBuf {
    beside(path, ".new")
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> WriteError {
    move |source| WriteError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// A link in a file's place could lead to somebody else's file.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// A new name is durable once its directory is.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
