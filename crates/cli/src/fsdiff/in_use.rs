//! Whether somebody may write to an image meanwhile, as far as the kernel tells:
//! who has it open, a loop device over it, a mount or another holder of it.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What a file or block device is, by whatever name it is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    File { device: u64, inode: u64 },
    Block { device: u64 },
}

impl Disk {
    fn of(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        if kind.is_block_device() {
            let device = metadata.rdev();
            return Some(Self::Block { device });
        }
        kind.is_file().then(|| Self::File {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn is_at(self, path: &Path) -> bool {
        let found = path.metadata().ok();
        found.and_then(|found| Self::of(&found)) == Some(self)
    }
}

/// Whether a process has it open for writing, or the kernel by a loop device or
/// a mount. What other users' processes have open only root sees.
pub(super) fn is_written(path: &Path) -> bool {
    let disk = path.metadata().ok().and_then(|found| Disk::of(&found));
    disk.is_some_and(|disk| is_looped(disk) || is_claimed(disk, path) || is_open(&nodes(disk)))
}

/// By what else its bytes can be written: of a block device its partitions or its
/// whole disk, and the file behind a loop device.
fn nodes(disk: Disk) -> Vec<Disk> {
    let mut nodes = vec![disk];
    let Disk::Block { device } = disk else {
        return nodes;
    };
    let number = |(major, minor)| format!("/sys/dev/block/{major}:{minor}");
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let mut whole = PathBuf::from(number(device));
    if whole.join("partition").exists() {
        whole.push("..");
        nodes.extend(block(&whole));
    } else {
        let parts = entries(&whole).filter(|entry| entry.join("partition").exists());
        nodes.extend(parts.filter_map(|part| block(&part)));
    }
    let behind = fs::read_to_string(whole.join("loop/backing_file"));
    let behind = behind
        .ok()
        .and_then(|name| fs::metadata(name.trim_end()).ok());
    nodes.extend(behind.and_then(|file| Disk::of(&file)));
    nodes
}

/// A block device, by its directory in sysfs.
fn block(dir: &Path) -> Option<Disk> {
    let number = fs::read_to_string(dir.join("dev")).ok()?;
    let (major, minor) = number.trim_end().split_once(':')?;
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Disk::Block { device })
}

fn is_open(nodes: &[Disk]) -> bool {
    let is_process = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.iter().all(u8::is_ascii_digit)
    };
    let mut processes = entries(Path::new("/proc")).filter(is_process);
    processes.any(|process| {
        let mut opened = entries(&process.join("fd"));
        opened.any(|fd| {
            let found = fd.metadata().ok().and_then(|found| Disk::of(&found));
            found.is_some_and(|disk| nodes.contains(&disk)) && may_write(&process, &fd)
        })
    })
}

/// By the mode in which a descriptor was opened (proc_pid_fdinfo(5)).
fn may_write(process: &Path, fd: &Path) -> bool {
    const ACCESS: u64 = 3;
    let Some(number) = fd.file_name() else {
        return false;
    };
    let info = fs::read_to_string(process.join("fdinfo").join(number)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & ACCESS != 0)
}

fn is_looped(disk: Disk) -> bool {
    entries(Path::new("/sys/block")).any(|device| {
        let is_read_only = fs::read(device.join("ro")).is_ok_and(|ro| ro.starts_with(b"1"));
        let behind = fs::read_to_string(device.join("loop/backing_file"));
        !is_read_only && behind.is_ok_and(|behind| disk.is_at(Path::new(behind.trim_end())))
    })
}

/// A block device that is mounted in any namespace, or that another one (a mapped
/// device, an array) is made of, or one of whose partitions is: the kernel then lets
/// nobody else have it for himself, which is asked for and given back at once.
fn is_claimed(disk: Disk, path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK;
    matches!(disk, Disk::Block { .. })
        && matches!(
            rustix::fs::open(path, flags, Mode::empty()),
            Err(Errno::BUSY)
        )
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}
