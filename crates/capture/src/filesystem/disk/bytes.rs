//! Disks in memory and parts of disks.

use super::{Blocks, Place, Stamp};
use std::io;
use std::sync::Arc;

/// A disk in memory.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

#[cfg(any(test, feature = "fuzzing"))]
impl Blocks for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| beyond())?;
        let bytes = self
            .0
            .get(start..)
            .and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or_else(beyond)?);
        Ok(())
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        Ok((Place::Unknown, self.size().saturating_sub(offset)))
    }

    fn stamp(&self) -> Option<Stamp> {
        None
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        Ok(Arc::new(Self(self.0.clone())))
    }
}

/// A part of a disk.
#[derive(Debug)]
pub(crate) struct Window {
    disk: Arc<dyn Blocks>,
    start: u64,
    len: u64,
}

impl Window {
    /// `len` bytes from `start` on, as far as the disk has them.
    pub(crate) fn new(disk: Arc<dyn Blocks>, start: u64, len: u64) -> Self {
        let len = len.min(disk.size().saturating_sub(start));
        Self { disk, start, len }
    }

    /// The part of `disk` that another one has there.
    pub(crate) fn of(disk: &Arc<dyn Blocks>, part: super::super::image::PartId) -> Self {
        Self::new(Arc::clone(disk), part.start, part.len)
    }
}

impl Blocks for Window {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(beyond());
        }
        self.disk.read_exact_at(buffer, self.start + offset)
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        let left = self.len.saturating_sub(offset);
        if left == 0 {
            return Ok((Place::Zeros, 0));
        }
        let (place, len) = self.disk.place(self.start + offset)?;
        Ok((place, len.min(left)))
    }

    fn stamp(&self) -> Option<Stamp> {
        self.disk.stamp()
    }

    fn is_as_read(&self) -> bool {
        self.disk.is_as_read()
    }

    fn drop_cached(&self) {
        self.disk.drop_cached();
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        let disk = self.disk.again()?;
        Ok(Arc::new(Self::new(disk, self.start, self.len)))
    }
}

fn beyond() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ends before that")
}
