//! Where on its device a file's bytes are (Linux, Documentation/filesystems/fiemap.rst).
//!
//! Two files of one file system whose extents are at the same place share
//! them: a reflink copy, as far as nothing was written since.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Consecutive bytes of a file at consecutive places of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the file.
    pub logical: u64,
    /// First byte on the device. Means something only if `kind` says so.
    pub physical: u64,
    /// Bytes, at least 1.
    pub len: u64,
    /// What is there.
    pub kind: ExtentKind,
}

/// What an extent is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Plain bytes at `physical`.
    Placed,
    /// Allocated and never written: reads as zeros.
    Unwritten,
    /// Elsewhere or encoded: compressed, inline, encrypted, not yet allocated.
    Other,
}

/// `FIEMAP_FLAG_SYNC`: flush first, as a write to a shared extent shows only then.
const SYNC: u32 = 1;
const LAST: u32 = 0x1;
const UNWRITTEN: u32 = 0x800;
/// Unknown, delayed, encoded, encrypted, not aligned, inline, tail.
const NOT_PLAIN: u32 = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400;
/// `_IOWR('f', 11, struct fiemap)`.
const REQUEST: libc::Ioctl = 0xc020_660b;
const AT_ONCE: usize = 512;

/// `struct fiemap_extent` of linux/fiemap.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Raw {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap`, with room for answers.
#[repr(C)]
struct Query {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Raw; AT_ONCE],
}

/// All extents of a file, in order; what lies between them is a hole. `None`
/// if there are more than `most`.
///
/// # Errors
/// Where the file system does not tell (`EOPNOTSUPP`), or flushing failed.
pub fn extents(file: impl AsFd, most: usize) -> io::Result<Option<Vec<Extent>>> {
    let mut found: Vec<Extent> = Vec::new();
    let mut query = Box::new(Query {
        start: 0,
        length: u64::MAX,
        flags: SYNC,
        mapped: 0,
        count: u32::try_from(AT_ONCE).unwrap_or(0),
        reserved: 0,
        extents: [Raw::default(); AT_ONCE],
    });
    loop {
        ask(&file, &mut query)?;
        let mapped = usize::try_from(query.mapped).unwrap_or(0);
        for raw in query.extents.iter().take(mapped) {
            let end = raw.logical.saturating_add(raw.length);
            if raw.length == 0 || end <= query.start {
                // No progress: the map changed while it was read.
                return Ok(None);
            }
            query.start = end;
            found.push(extent(raw));
            if raw.flags & LAST != 0 {
                return Ok(Some(found));
            }
        }
        if mapped == 0 {
            return Ok(Some(found));
        }
        if found.len() > most {
            return Ok(None);
        }
        query.length = u64::MAX - query.start;
        query.flags = 0;
    }
}

fn ask(file: &impl AsFd, query: &mut Query) -> io::Result<()> {
    let file = file.as_fd();
    // SAFETY: the request reads and writes a `struct fiemap` that is followed
    // by `count` extents, which is what a `Query` is, and it is ours alone.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), REQUEST, std::ptr::from_mut(query)) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn extent(raw: &Raw) -> Extent {
    Extent {
        logical: raw.logical,
        physical: raw.physical,
        len: raw.length,
        kind: if raw.flags & NOT_PLAIN != 0 {
            ExtentKind::Other
        } else if raw.flags & UNWRITTEN != 0 {
            ExtentKind::Unwritten
        } else {
            ExtentKind::Placed
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// Whatever the file system below the temporary directory can tell, it
    /// must agree with what was written.
    #[test]
    fn holes_are_no_extents() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 8192], 1 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
        let extents = match extents(&file, 100) {
            Ok(extents) => extents.unwrap(),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
                println!("skipped: holes_are_no_extents: no FIEMAP here");
                return;
            }
        };
        let covers = |at: u64| {
            let covers =
                |extent: &&Extent| extent.logical <= at && at < extent.logical + extent.len;
            extents.iter().find(covers)
        };
        assert_eq!(covers(0), None);
        assert_eq!(covers(3 << 20), None);
        let written = covers((1 << 20) + 5000).unwrap();
        assert_ne!(written.kind, ExtentKind::Unwritten);
    }

    #[test]
    fn too_many_extents_are_none() {
        let file = tempfile::tempfile().unwrap();
        for number in 0..2000 {
            file.write_all_at(b"x", number * 65536).unwrap();
        }
        if let Ok(found) = extents(&file, 600) {
            assert_eq!(found, None);
            assert!(extents(&file, 5000).unwrap().is_some());
        }
    }
}
