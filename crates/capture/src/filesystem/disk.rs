//! Disks as the sandbox sees them: raw images, block devices, qcow2 images,
//! E2B's snapshots, and partitions of these. Nothing is mounted, nothing is written.

mod bytes;
mod changed;
mod cow;
mod device;
mod e2b;
mod noted;
mod partition;
mod qcow2;
mod raw;
mod sums;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use bytes::Bytes;
pub(crate) use bytes::Window;
pub(crate) use changed::{Ranges, changed};
pub(crate) use noted::Noted;
pub(crate) use partition::{Partition, partitions};
pub(crate) use raw::Raw;
pub(crate) use sums::Sums;

use super::config::{FsError, ImageFormat};
use cow::Cow;
pub(crate) use device::{Counters, allocated};
use e2b::E2b;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use e2b::Header as E2bHeader;
pub(crate) use qcow2::Qcow2;
use sandtrace_event::DiskIdentity;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A disk's bytes.
pub(crate) trait Blocks: fmt::Debug + Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset` on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Where the bytes from `offset` on are kept, and how many of them are
    /// kept in one piece: at least 1, unless `offset` is at or beyond the end.
    fn place(&self, offset: u64) -> io::Result<(Place, u64)>;

    /// Differs once somebody wrote to the disk; `None` where that cannot be told.
    fn stamp(&self) -> Option<Stamp>;

    /// Whether all that was read since this was asked last is still there, where
    /// no stamp tells.
    fn is_as_read(&self) -> bool {
        true
    }

    /// Has what is read from here on be what is there now, where somebody wrote to a
    /// device past the page cache that reads of it go through.
    fn drop_cached(&self) {}

    /// The disk of which it holds what differs, if there is one.
    fn below(&self) -> Option<&dyn Blocks> {
        None
    }

    /// A copy that nobody can write to, where one costs next to nothing.
    fn copy(&self) -> Option<Arc<dyn Blocks>> {
        None
    }

    /// The same disk as it is now: its size and layout may be others.
    fn again(&self) -> io::Result<Arc<dyn Blocks>>;
}

/// Where bytes are kept. Two disks whose bytes are at the same place have
/// the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: they are zero.
    Zeros,
    /// At this byte of a device.
    Device { device: u64, at: u64 },
    /// At this byte of a file.
    File { device: u64, inode: u64, at: u64 },
    /// Not told.
    Unknown,
}

impl Place {
    /// Whether `self` and `other` surely hold the same bytes.
    pub(crate) fn is_same(self, other: Self) -> bool {
        self == other && self != Self::Unknown
    }
}

/// When everything that a disk is made of was last written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Of files: size, and the times of the last write and the last change.
    pub(crate) files: Vec<(u64, i64, i64)>,
    /// Of block devices: what was written to them up to now.
    pub(crate) devices: Vec<Counters>,
}

impl Stamp {
    /// That of a disk that is made of all of them; `None` if one has none.
    pub(crate) fn of_all<'a>(disks: impl IntoIterator<Item = &'a dyn Blocks>) -> Option<Self> {
        let mut all = Self::default();
        for disk in disks {
            let stamp = disk.stamp()?;
            all.files.extend(stamp.files);
            all.devices.extend(stamp.devices);
        }
        Some(all)
    }
}

/// Opens an image. What its bytes say never decides its format: a guest that
/// writes a qcow2 header to its raw disk would make us open the files it names.
///
/// `expected` is what the open file itself must be.
pub(crate) fn open(
    path: &Path,
    format: ImageFormat,
    expected: Option<&DiskIdentity>,
) -> Result<Arc<dyn Blocks>, FsError> {
    let raw = Raw::open(path)?;
    if let Some(expected) = expected.filter(|expected| !raw.is(expected)) {
        return Err(FsError::Replaced {
            path: path.to_owned(),
            device: expected.device.clone(),
            inode: expected.inode.0,
        });
    }
    match format {
        ImageFormat::Raw => Ok(Arc::new(raw)),
        ImageFormat::E2b => Ok(Arc::new(E2b::open(&raw, path)?)),
        ImageFormat::Qcow2 => {
            let disk = Qcow2::open(Arc::new(raw), path, 0);
            let disk = disk.map_err(|source| FsError::Image {
                path: path.to_owned(),
                source,
            })?;
            Ok(Arc::new(disk))
        }
    }
}

/// Opens the disk whose written blocks are in `cow`, above what `template` is
/// by its name: an image, or the header of a snapshot.
pub(crate) fn open_cow(cow: &Path, template: &Path) -> Result<Arc<dyn Blocks>, FsError> {
    let below = open(template, ImageFormat::by_name(template), None)?;
    let disk = Cow::over(cow, Raw::open(cow)?, below)?;
    Ok(Arc::new(disk))
}

/// Calls `each` with every piece of `range`, and whether it is known to be zero.
pub(crate) fn pieces(
    disk: &dyn Blocks,
    range: Range<u64>,
    each: &mut dyn FnMut(Range<u64>, bool),
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let (place, len) = disk.place(at)?;
        let end = at.saturating_add(len.max(1)).min(range.end);
        each(at..end, place == Place::Zeros);
        at = end;
    }
    Ok(())
}
