//! Which processes may be watched, in memory that is shared with the programs.
//!
//! Every process of the host looks there at each call, so it is an array that
//! the kernel reads without any search. Each slot counts the watched processes
//! whose ids fall on it.

use super::mapped::Mapped;
use aya::maps::Map;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots, as `FILTER` in syscalls.bpf.c.
const SLOTS: usize = 16_384;

/// The array, mapped.
pub(super) struct Filter(Mapped);

impl Filter {
    pub(super) fn of(map: Map) -> io::Result<Self> {
        Mapped::of(map, SLOTS).map(Self)
    }

    /// A watched process has this id.
    pub(super) fn add(&self, pid: u32) {
        if let Some(slot) = self.slot(pid) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It is not watched any more.
    pub(super) fn remove(&self, pid: u32) {
        if let Some(slot) = self.slot(pid) {
            slot.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn slot(&self, pid: u32) -> Option<&AtomicU64> {
        let slot = usize::try_from(pid).unwrap_or_default() % SLOTS;
        self.0.words().get(slot)
    }
}
