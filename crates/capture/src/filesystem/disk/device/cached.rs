//! What the host's page cache keeps of a block device, where others write past it.

use super::{backing, disk, is_counted, sysfs, written};
use rustix::fs::Advice;
use sandtrace_sys::blockdev::dirty_pages;
use std::fs::{File, Metadata};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Lets go of what the host's page cache has of a device.
///
/// Where pages wait to be written, whoever wrote them is seen by the cache alone, and
/// the kernel would write them at once: that much around them stays.
pub(in super::super) fn drop_cached(file: &File, size: u64) {
    const MOST_PIECES: u64 = 256;
    const LEAST: u64 = 1 << 20;
    let piece = size.div_ceil(MOST_PIECES).next_multiple_of(LEAST);
    let mut at = 0;
    while at < size {
        let end = size.min(at + piece);
        // A kernel that does not tell what waits has no stamps either.
        if dirty_pages(file, at..end).unwrap_or(0) == 0 {
            let _kept = rustix::fs::fadvise(file, at, NonZero::new(end - at), Advice::DontNeed);
        }
        at = end;
    }
}

/// What of a device was written past the page cache that reads of it go through: by
/// its whole disk, its partitions, devices that are made of it, or the file behind it.
/// Direct writes to the device itself are no such, as the kernel drops their pages.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Elsewhere {
    counted: [u64; 4],
    files: Vec<(u64, i64, i64)>,
}

impl Elsewhere {
    /// `None` where that is not told.
    pub(in super::super) fn of(file: &File, metadata: &Metadata) -> Option<Self> {
        let (own, whole) = (sysfs(metadata.rdev()), disk(metadata.rdev()));
        let others: Vec<_> = match own == whole {
            true => entries(&own)
                .filter(|entry| entry.join("partition").exists())
                .chain(entries(&own.join("holders")))
                .collect(),
            false => vec![whole.clone()],
        };
        if !others.is_empty() && !is_counted(&whole) {
            return None;
        }
        let mut counted = [0_u64; 4];
        for other in &others {
            let all = counted.iter_mut().zip(written(other)?);
            all.for_each(|(sum, more)| *sum = sum.wrapping_add(more));
        }
        if own != whole {
            // The whole disk counts what is the partition's own as well.
            let all = counted.iter_mut().zip(written(&own)?);
            all.for_each(|(sum, own)| *sum = sum.wrapping_sub(own));
        }
        let files = backing(file, &whole)?;
        Some(Self { counted, files })
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}
