//! Whether a block device was written to, by what the kernel counts of it.

mod cached;

use super::Stamp;
use super::raw::times;
pub(super) use cached::{Elsewhere, drop_cached};
use sandtrace_sys::blockdev::{behind_loop, dirty_pages};
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt};
use std::path::{Path, PathBuf};

/// What was written to a disk since the kernel knows it
/// (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Differs once there is another disk behind the name.
    sequence: String,
    /// Bytes.
    size: u64,
    /// Writes and discards, and the sectors of both.
    written: [u64; 4],
}

/// Places of [`Counters::written`] in a device's `stat`.
const WRITTEN: [usize; 4] = [4, 6, 11, 13];

/// `None` where the counters do not tell: they are off, the kernel is older
/// than 6.5, something is written that has not got to the disk and thus is not
/// counted, or it cannot be told what is behind a loop device.
///
/// What is on its way is counted when it has arrived, and then is news.
pub(super) fn stamp(file: &File, metadata: &Metadata, size: u64) -> Option<Stamp> {
    let disk = disk(metadata.rdev());
    let is_clean = dirty_pages(file, 0..size).ok()? == 0;
    if !is_counted(&disk) || !is_clean {
        return None;
    }
    let counters = Counters {
        sequence: std::fs::read_to_string(disk.join("diskseq")).ok()?,
        size,
        written: written(&disk)?,
    };
    Some(Stamp {
        files: backing(file, &disk)?,
        devices: vec![counters],
    })
}

/// Bytes that may have to be read of an image, at a glance: of a file those that are
/// not holes. What cannot be looked at has none.
pub(crate) fn allocated(image: &Path) -> u64 {
    let Ok(metadata) = image.metadata() else {
        return 0;
    };
    let sectors = if metadata.file_type().is_block_device() {
        let size = std::fs::read_to_string(sysfs(metadata.rdev()).join("size"));
        size.ok().and_then(|size| number(size.trim())).unwrap_or(0)
    } else {
        metadata.blocks()
    };
    sectors.saturating_mul(512)
}

fn number(word: &str) -> Option<u64> {
    word.parse().ok()
}

fn sysfs(device: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// The whole disk: what is written to it counts for each of its partitions.
fn disk(device: u64) -> PathBuf {
    let device = sysfs(device);
    match device.join("partition").exists() {
        true => device.join(".."),
        false => device,
    }
}

/// The file behind a loop device, which others can write to as well; nothing
/// for other devices.
fn backing(file: &File, disk: &Path) -> Option<Vec<(u64, i64, i64)>> {
    let Ok(mut path) = std::fs::read(disk.join("loop/backing_file")) else {
        return Some(Vec::new());
    };
    path.truncate(path.trim_ascii_end().len());
    let path = PathBuf::from(std::ffi::OsString::from_vec(path));
    let found = path.metadata().ok().filter(Metadata::is_file)?;
    let is_it = behind_loop(file).ok()? == (found.dev(), found.ino());
    is_it.then(|| vec![times(&found)])
}

fn is_counted(disk: &Path) -> bool {
    let counts = std::fs::read(disk.join("queue/iostats"));
    counts.is_ok_and(|counts| counts.trim_ascii() == b"1")
}

/// Writes and discards to a device, and the sectors of both.
fn written(device: &Path) -> Option<[u64; 4]> {
    let stat = std::fs::read_to_string(device.join("stat")).ok()?;
    let numbers: Vec<u64> = stat.split_whitespace().map_while(number).collect();
    let [writes, sectors, discards, discarded] = WRITTEN.map(|place| numbers.get(place).copied());
    Some([
        writes?,
        sectors?,
        discards.unwrap_or(0),
        discarded.unwrap_or(0),
    ])
}
