//! The capture file, hashed as it is read.

use sandtrace_event::Digest;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::rc::Rc;

/// A file whose digest is that of the very bytes that were read of it: what
/// is replaced while it is read has no other digest than what was looked at.
/// Clones share their place in the file.
#[derive(Clone)]
pub(super) struct Source(Rc<RefCell<Hashed>>);

struct Hashed {
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self(Rc::new(RefCell::new(Hashed {
            file,
            hasher: Sha256::new(),
            bytes: 0,
        }))))
    }

    /// Reads what is left of the file.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }

    /// How many bytes were read, and their digest.
    pub(super) fn digest(&self) -> (u64, Digest) {
        let hashed = self.0.borrow();
        let digest = hashed.hasher.clone().finalize();
        (hashed.bytes, Digest(digest.into()))
    }
}

/// Opens a capture, which is read more than once.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
        return Err(io::Error::other(
            "it is read more than once, so a file is needed",
        ));
    }
    Ok(file)
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut hashed = self.0.borrow_mut();
        let read = hashed.file.read(buffer)?;
        hashed.hasher.update(buffer.get(..read).unwrap_or_default());
        hashed.bytes += u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}
