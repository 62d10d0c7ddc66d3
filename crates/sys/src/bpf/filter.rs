//! Which processes may be watched, in memory that is shared with the programs.
//!
//! Every process of the host looks there at each call, so it is an array that
//! the kernel reads without any search. Each slot counts the watched processes
//! whose ids fall on it.

use aya::maps::Map;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots, as `FILTER` in syscalls.bpf.c.
const SLOTS: usize = 16_384;

/// What it takes of memory.
pub(super) const BYTES: u64 = 8 * 16_384;

/// The array, mapped.
pub(super) struct Filter {
    slots: NonNull<AtomicU64>,
}

// SAFETY: the memory is shared with the kernel anyway and only ever changed
// by atomic additions; nothing ties it to a thread.
unsafe impl Send for Filter {}

impl Filter {
    /// Maps the array `map`, which must have been made with `BPF_F_MMAPABLE`.
    pub(super) fn of(map: Map) -> io::Result<Self> {
        let Map::Array(data) = map else {
            return Err(io::Error::other("it is not an array"));
        };
        let length = SLOTS * size_of::<AtomicU64>();
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
        let slots = NonNull::new(memory.cast());
        let slots = slots.ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { slots })
    }

    /// A watched process has this id.
    pub(super) fn add(&self, pid: u32) {
        self.slot(pid).fetch_add(1, Ordering::Relaxed);
    }

    /// It is not watched any more.
    pub(super) fn remove(&self, pid: u32) {
        self.slot(pid).fetch_sub(1, Ordering::Relaxed);
    }

    fn slot(&self, pid: u32) -> &AtomicU64 {
        let slot = usize::try_from(pid).unwrap_or_default() % SLOTS;
        // SAFETY: the mapping has `SLOTS` slots and lives as long as `self`.
        let slot = unsafe { self.slots.add(slot) };
        // SAFETY: as above; the kernel and this process change slots by atomic
        // additions alone.
        unsafe { slot.as_ref() }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let length = SLOTS * size_of::<AtomicU64>();
        // SAFETY: this is the mapping that `of` made, and no reference into
        // it outlives `self`.
        let _unmapped = unsafe { libc::munmap(self.slots.as_ptr().cast(), length) };
    }
}
