//! Many entries of a hash table at once (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6),
//! and one entry for the last time.

use aya::maps::MapFd;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

/// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
const TAKE: libc::c_int = 21;
const LOOKUP_BATCH: libc::c_int = 24;
const DELETE_BATCH: libc::c_int = 27;

/// Entries per call. The kernel hands out whole buckets, of which none is as
/// large as this by far.
const ENTRIES: u32 = 4096;

/// `union bpf_attr` for batches (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `each` with key and value of every entry. `key` and `value` are
/// their sizes in bytes.
pub(super) fn read(
    fd: &MapFd,
    key: usize,
    value: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let entries = usize::try_from(ENTRIES).unwrap_or_default();
    let mut keys = vec![0_u8; key * entries];
    let mut values = vec![0_u8; value * entries];
    // The kernel's place in the table: a bucket's number for hash tables.
    let mut from = [0_u8; 8];
    let mut to = [0_u8; 8];
    let mut first = true;
    loop {
        let mut batch = Batch {
            in_batch: if first { 0 } else { address(from.as_mut_ptr()) },
            out_batch: address(to.as_mut_ptr()),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: ENTRIES,
            map_fd: number(fd),
            ..Batch::default()
        };
        let size = size_of::<Batch>();
        // SAFETY: the kernel writes at most `count` keys and values, for which
        // the vectors have room, at most eight bytes to `out_batch`, and
        // `count` within `batch`, all of which outlive the call; the size is
        // that of `batch`.
        let status = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut batch, size) };
        let error = (status != 0).then(io::Error::last_os_error);
        let last = match &error {
            None => false,
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Some(_) => return Err(error.unwrap_or_else(io::Error::last_os_error)),
        };
        let got = usize::try_from(batch.count)
            .unwrap_or_default()
            .min(entries);
        for (key, value) in keys
            .chunks_exact(key)
            .zip(values.chunks_exact(value))
            .take(got)
        {
            each(key, value);
        }
        if last {
            return Ok(());
        }
        first = false;
        from = to;
    }
}

/// Removes entries, those that are there; `keys` holds keys of `size` bytes,
/// one behind the other.
pub(super) fn delete(fd: &MapFd, keys: &[u8], size: usize) {
    let mut keys = keys;
    while keys.len() >= size {
        let mut batch = Batch {
            keys: address(keys.as_ptr().cast_mut()),
            count: u32::try_from(keys.len() / size).unwrap_or(u32::MAX),
            map_fd: number(fd),
            ..Batch::default()
        };
        let bytes = size_of::<Batch>();
        // SAFETY: the kernel reads `count` keys of the table's key size, which
        // is what every caller passes for `size`, and writes `count`.
        let status = unsafe { libc::syscall(libc::SYS_bpf, DELETE_BATCH, &raw mut batch, bytes) };
        if status == 0 {
            return;
        }
        // It stops at a key that is not there: on behind that one.
        let done = usize::try_from(batch.count).unwrap_or_default();
        keys = keys.get((done + 1) * size..).unwrap_or_default();
    }
}

/// `union bpf_attr` for one entry (linux/bpf.h).
#[repr(C)]
struct Element {
    map_fd: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Removes one entry and answers what it was (Linux 5.14); `None` where there
/// is none. `key` is as long as the table's keys are, and `VALUE` says how
/// long its values are.
pub(super) fn take<const VALUE: usize>(fd: &MapFd, key: &[u8]) -> io::Result<Option<[u8; VALUE]>> {
    let mut value = [0_u8; VALUE];
    let mut element = Element {
        map_fd: number(fd),
        unused: 0,
        key: address(key.as_ptr().cast_mut()),
        value: address(value.as_mut_ptr()),
        flags: 0,
    };
    let size = size_of::<Element>();
    // SAFETY: the kernel reads a key and writes a value, whose sizes are those
    // of the table as every caller states them; both outlive the call.
    let status = unsafe { libc::syscall(libc::SYS_bpf, TAKE, &raw mut element, size) };
    if status == 0 {
        return Ok(Some(value));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(None),
        _ => Err(error),
    }
}

fn number(fd: &MapFd) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).unwrap_or(u32::MAX)
}

fn address(pointer: *mut u8) -> u64 {
    u64::try_from(pointer.expose_provenance()).unwrap_or_default()
}
