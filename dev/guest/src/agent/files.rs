//! The sandbox's files below one root, written through to the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{AgentError, below};

/// Largest file that the agent reads, in bytes.
const MAX_READ: u64 = 1 << 20;

pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn read(&self, path: &str) -> Result<String, AgentError> {
        let read = || {
            let mut text = String::new();
            File::open(below(&self.0, path))?
                .take(MAX_READ)
                .read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(failed("read", path))
    }

    /// Makes or replaces the file, and its parents where they are missing.
    pub(super) fn write(&self, path: &str, contents: &str) -> Result<(), AgentError> {
        let full = below(&self.0, path);
        let write = || {
            if let Some(parent) = full.parent() {
                fs::create_dir_all(parent)?;
            }
            store(
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&full)?,
                contents,
            )?;
            sync_parent(&full)
        };
        write().map_err(failed("write", path))
    }

    pub(super) fn append(&self, path: &str, contents: &str) -> Result<(), AgentError> {
        let append = || {
            let file = OpenOptions::new().append(true).open(below(&self.0, path))?;
            store(file, contents)
        };
        append().map_err(failed("write", path))
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), AgentError> {
        let full = below(&self.0, path);
        fs::remove_file(&full)
            .and_then(|()| sync_parent(&full))
            .map_err(failed("delete", path))
    }
}

fn store(mut file: File, contents: &str) -> io::Result<()> {
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}

/// A new or deleted name is on the disk only once its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn failed(doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}
