//! What the kernel knows of a block device that its files in sysfs do not say.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

/// `cachestat(2)`, since Linux 6.5: the same number on all architectures.
const CACHESTAT: libc::c_long = 451;
/// `LOOP_GET_STATUS64` of linux/loop.h.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;

/// `struct cachestat_range` of linux/mman.h; a length of 0 is up to the end.
#[repr(C)]
struct Asked {
    offset: u64,
    length: u64,
}

/// `struct cachestat`, in pages.
#[repr(C)]
#[derive(Default)]
struct Cached {
    all: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// `struct loop_info64`, of which only the first two fields are read.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rest: [u64; 27],
}

/// Pages of some bytes of a file or block device that were written and are not on
/// the disk yet, as far as they were written through the page cache that `file` reads.
///
/// # Errors
/// On kernels before 6.5 (`ENOSYS`), and for files of others.
pub fn dirty_pages(file: impl AsFd, bytes: Range<u64>) -> io::Result<u64> {
    let file = file.as_fd();
    let asked = Asked {
        offset: bytes.start,
        length: bytes.end.saturating_sub(bytes.start),
    };
    let mut cached = Cached::default();
    // SAFETY: the call reads a `struct cachestat_range` and writes a `struct
    // cachestat`, which these are, and both live until it returns.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const asked,
            &raw mut cached,
            0,
        )
    };
    match result {
        0 => Ok(cached.dirty.saturating_add(cached.writeback)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Device and inode of the file behind a loop device, as stat(2) says them.
///
/// # Errors
/// When it is none, or nothing is behind it.
pub fn behind_loop(device: impl AsFd) -> io::Result<(u64, u64)> {
    let device = device.as_fd();
    let mut info = LoopInfo {
        device: 0,
        inode: 0,
        rest: [0; 27],
    };
    // SAFETY: the request writes a `struct loop_info64`, which has the size of
    // a `LoopInfo`, and it is ours alone.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    match result {
        0 => Ok((info.device, info.inode)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// `sizeof(struct loop_info64)`.
    const _: () = assert!(size_of::<LoopInfo>() == 232);

    #[test]
    fn what_is_written_is_dirty_until_it_is_flushed() {
        // Not in memory alone, as a temporary directory may be.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&[7; 9000]).unwrap();
        match dirty_pages(&file, 0..0) {
            Ok(pages) => {
                assert!(pages > 0);
                assert_eq!(dirty_pages(&file, 1 << 20..2 << 20).unwrap(), 0);
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
                println!("skipped: what_is_written_is_dirty_until_it_is_flushed: {error}");
                return;
            }
        }
        file.sync_all().unwrap();
        assert_eq!(dirty_pages(&file, 0..0).unwrap(), 0);
        assert!(behind_loop(&file).is_err());
    }
}
