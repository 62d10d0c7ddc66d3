//! A file or block device that is the disk byte for byte.

use super::super::config::FsError;
use super::device::{self, Elsewhere};
use super::{Blocks, Place, Stamp};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use sandtrace_event::DiskIdentity;
use sandtrace_sys::fiemap::{Extent, ExtentKind, extents};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// More extents of one file are not asked for: 40 MiB of them.
const MOST_EXTENTS: usize = 1 << 20;

/// A file or block device that is the disk byte for byte.
#[derive(Debug)]
pub(crate) struct Raw {
    file: File,
    size: u64,
    device: u64,
    inode: u64,
    is_file: bool,
    /// Of a device: what was written past its page cache when that was let go of last.
    elsewhere: Arc<Mutex<Option<Elsewhere>>>,
    /// The file's map at the first question; `None` where there is none.
    extents: OnceLock<Option<Vec<Extent>>>,
}

impl Raw {
    pub(crate) fn open(path: &Path) -> Result<Self, FsError> {
        // NONBLOCK: a pipe in its place must not stop us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let failed = |source| FsError::Image {
            path: path.to_owned(),
            source,
        };
        let fd = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(fd.map_err(|errno| failed(errno.into()))?);
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(FsError::NotADisk {
                path: path.to_owned(),
            });
        }
        Self::of(file).map_err(failed)
    }

    /// Whether the open file is this one, by device and inode.
    pub(super) fn is(&self, other: &DiskIdentity) -> bool {
        let (major, minor) = (
            rustix::fs::major(self.device),
            rustix::fs::minor(self.device),
        );
        other.inode.0 == self.inode && other.device == format!("{major}:{minor}")
    }

    fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let size = rustix::fs::seek(&file, SeekFrom::End(0))?;
        Ok(Self {
            size,
            device: metadata.dev(),
            inode: metadata.ino(),
            is_file: metadata.file_type().is_file(),
            elsewhere: Arc::default(),
            extents: OnceLock::new(),
            file,
        })
    }

    /// The same file as it is now: its size and extents may be others.
    pub(super) fn fresh(&self) -> io::Result<Self> {
        Ok(Self {
            elsewhere: Arc::clone(&self.elsewhere),
            ..Self::of(self.file.try_clone()?)?
        })
    }

    /// A copy that shares all extents until either is written to, without a
    /// name, in a directory of the same file system.
    fn reflink(&self, dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let copy = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::ioctl_ficlone(&copy, &self.file)?;
        Self::of(copy.into())
    }

    /// Where it is now, by the kernel's own link.
    fn directory(&self) -> Option<PathBuf> {
        use std::os::fd::AsRawFd;
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Some(std::fs::read_link(link).ok()?.parent()?.to_owned())
    }

    fn extents(&self) -> Option<&[Extent]> {
        let ask = || match self.is_file {
            true => extents(&self.file, MOST_EXTENTS).ok().flatten(),
            false => None,
        };
        self.extents.get_or_init(ask).as_deref()
    }

    fn by_extents(&self, extents: &[Extent], offset: u64) -> (Place, u64) {
        let left = self.size - offset;
        let next = extents.partition_point(|extent| extent.logical + extent.len <= offset);
        let Some(extent) = extents.get(next) else {
            return (Place::Zeros, left);
        };
        let Some(skip) = offset.checked_sub(extent.logical) else {
            return (Place::Zeros, left.min(extent.logical - offset));
        };
        let place = match extent.kind {
            ExtentKind::Placed => Place::Device {
                device: self.device,
                at: extent.physical.saturating_add(skip),
            },
            ExtentKind::Unwritten => Place::Zeros,
            ExtentKind::Other => self.in_file(offset),
        };
        (place, left.min(extent.len - skip))
    }

    /// By SEEK_HOLE and SEEK_DATA, where the file system knows these.
    fn by_seeking(&self, offset: u64) -> io::Result<(Place, u64)> {
        let left = self.size - offset;
        let in_file = (self.in_file(offset), left);
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => return Ok((Place::Zeros, left.min(data - offset))),
            Ok(_) => {}
            Err(Errno::NXIO) if self.is_file => return Ok((Place::Zeros, left)),
            Err(Errno::INVAL | Errno::NXIO | Errno::OPNOTSUPP) => return Ok(in_file),
            Err(errno) => return Err(errno.into()),
        }
        match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => Ok((in_file.0, left.min(hole - offset))),
            _ => Ok(in_file),
        }
    }

    /// Size of the pieces in which its file system keeps it, and whether parts
    /// of it are not kept at all; `None` for a device.
    pub(super) fn pieces(&self) -> Option<(u64, bool)> {
        let metadata = self.file.metadata().ok().filter(|_| self.is_file)?;
        let kept = metadata.blocks().saturating_mul(512);
        Some((metadata.blksize(), kept < self.size))
    }

    /// Whether it was written at `offset`, and for how many bytes that holds.
    pub(super) fn written(&self, offset: u64) -> io::Result<(bool, u64)> {
        let (place, len) = self.by_seeking(offset)?;
        Ok((place != Place::Zeros, len))
    }

    pub(super) fn in_file(&self, offset: u64) -> Place {
        Place::File {
            device: self.device,
            inode: self.inode,
            at: offset,
        }
    }
}

impl Blocks for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        if offset >= self.size {
            return Ok((Place::Zeros, 0));
        }
        match self.extents() {
            Some(extents) => Ok(self.by_extents(extents, offset)),
            None if self.is_file => self.by_seeking(offset),
            None => Ok((self.in_file(offset), self.size - offset)),
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let metadata = self.file.metadata().ok()?;
        if !self.is_file {
            return device::stamp(&self.file, &metadata, self.size);
        }
        Some(Stamp {
            files: vec![times(&metadata)],
            devices: Vec::new(),
        })
    }

    fn drop_cached(&self) {
        let Some(metadata) = self.file.metadata().ok().filter(|_| !self.is_file) else {
            return;
        };
        // Asked before: what is written from here on is news the next time.
        let now = Elsewhere::of(&self.file, &metadata);
        let mut known = self
            .elsewhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if now.is_none() || *known != now {
            device::drop_cached(&self.file, self.size);
            *known = now;
        }
    }

    /// Beside the file, where its file system makes reflink copies.
    fn copy(&self) -> Option<Arc<dyn Blocks>> {
        let copy = self.reflink(&self.directory()?).ok()?;
        Some(Arc::new(copy))
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        Ok(Arc::new(self.fresh()?))
    }
}

/// A file's size, and when it was last written to and changed, in nanoseconds.
pub(super) fn times(metadata: &Metadata) -> (u64, i64, i64) {
    let nanoseconds = |seconds: i64, more: i64| {
        let whole = seconds.saturating_mul(1_000_000_000);
        whole.saturating_add(more)
    };
    let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
    let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
    (metadata.size(), modified, changed)
}
