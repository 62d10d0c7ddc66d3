//! Arrays of the programs in memory that is shared with them.

use aya::maps::Map;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// An array that was made with `BPF_F_MMAPABLE`, as words of 64 bits.
pub(super) struct Mapped {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory is shared with the kernel anyway and only ever changed
// by atomic operations; nothing ties it to a thread.
unsafe impl Send for Mapped {}

// SAFETY: as above; whoever shares it does atomic operations alone.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps an array of `count` words.
    pub(super) fn of(map: Map, count: usize) -> io::Result<Self> {
        let Map::Array(data) = map else {
            return Err(io::Error::other("it is not an array"));
        };
        let length = count * size_of::<AtomicU64>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = data.fd().as_fd().as_raw_fd();
        // SAFETY: the kernel chooses the address; it refuses a length beyond
        // the array's. The mapping keeps the array alive without `data`.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(memory.cast());
        let words = words.ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { words, count })
    }

    /// All of it.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `count` words, is aligned to a page and
        // lives as long as `self`; atomics may be changed by others.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let length = self.count * size_of::<AtomicU64>();
        // SAFETY: this is the mapping that `of` made, and no reference into
        // it outlives `self`.
        let _unmapped = unsafe { libc::munmap(self.words.as_ptr().cast(), length) };
    }
}

/// Multiplicative hashing, as `place` in syscalls.bpf.c.
pub(super) fn place(value: u32, bits: u32) -> usize {
    let place = value.wrapping_mul(2_654_435_761) >> (32 - bits);
    usize::try_from(place).unwrap_or_default()
}
