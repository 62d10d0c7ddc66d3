//! Whether somebody may write to an image meanwhile, as far as `/proc` and
//! `/sys` tell: who has it open, a loop device over it, a mount of it.

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
    disk.is_some_and(|disk| is_open(disk) || is_looped(disk) || is_mounted(disk))
}

fn is_open(disk: Disk) -> bool {
    let is_process = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.iter().all(u8::is_ascii_digit)
    };
    let mut processes = entries(Path::new("/proc")).filter(is_process);
    processes.any(|process| {
        let mut opened = entries(&process.join("fd"));
        opened.any(|fd| disk.is_at(&fd) && may_write(&process, &fd))
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

/// A block device that is mounted, or another one (a mapped device, an array)
/// is made of.
fn is_mounted(disk: Disk) -> bool {
    let Disk::Block { device } = disk else {
        return false;
    };
    let number = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts = mounts.lines().map(|line| line.split(' ').nth(2));
    let holders = PathBuf::from(format!("/sys/dev/block/{number}/holders"));
    mounts.any(|device| device == Some(&number)) || entries(&holders).next().is_some()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}
