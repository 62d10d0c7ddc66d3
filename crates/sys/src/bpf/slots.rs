//! Threads that live, each in its own place of an array (`slots` in
//! syscalls.bpf.c), in memory that is shared with the programs.

use super::mapped::{Mapped, place};
use super::tables::{BpfThread, THREAD_BYTES};
use aya::maps::Map;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// `SLOTS_BITS` there.
const BITS: u32 = 14;
const SLOTS: usize = 1 << BITS;

/// Words of `struct thread`, and which of them holds what.
const WORDS: usize = THREAD_BYTES / 8;
const REGS: usize = 0;
const SERIAL: usize = 6;
const CROWDED: usize = 11;

/// The array, mapped.
pub(super) struct Slots(Mapped);

impl Slots {
    pub(super) fn of(map: Map) -> io::Result<Self> {
        Mapped::of(map, SLOTS * WORDS).map(Self)
    }

    /// Every thread that has a place of its own.
    pub(super) fn threads(&self) -> impl Iterator<Item = BpfThread> {
        self.0.words().chunks_exact(WORDS).filter_map(thread)
    }

    /// Frees the place of a thread; `false` where it has none of its own.
    pub(super) fn clear(&self, regs: u64) -> bool {
        let Some([first, .., serial, _, _, _, _, _]) = self.slot(regs) else {
            return false;
        };
        if first.load(Ordering::Acquire) != regs {
            return false;
        }
        // First nobody takes it for a thread, then another may take it.
        serial.store(0, Ordering::Release);
        first.store(0, Ordering::Release);
        true
    }

    /// One thread less that found this place taken.
    pub(super) fn thin_out(&self, regs: u64) {
        if let Some(crowded) = self.slot(regs).and_then(|slot| slot.get(CROWDED)) {
            crowded.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn slot(&self, regs: u64) -> Option<&[AtomicU64]> {
        // As `slot_of` there: of the stack's number the lower 32 bits.
        let [a, b, c, d, ..] = (regs >> 14).to_le_bytes();
        let at = place(u32::from_le_bytes([a, b, c, d]), BITS) * WORDS;
        self.0.words().get(at..at + WORDS)
    }
}

/// What is in a place, unless it changed hands while it was read.
fn thread(slot: &[AtomicU64]) -> Option<BpfThread> {
    let owner = || {
        let [regs, serial] =
            [REGS, SERIAL].map(|at| slot.get(at).map(|it| it.load(Ordering::Acquire)));
        Some((regs?, serial? & u64::from(u32::MAX)))
    };
    let before = owner().filter(|(regs, serial)| *regs != 0 && *serial != 0)?;
    let mut bytes = [0; THREAD_BYTES];
    let (words, _) = bytes.as_chunks_mut::<8>();
    for (to, from) in words.iter_mut().zip(slot) {
        *to = from.load(Ordering::Acquire).to_ne_bytes();
    }
    BpfThread::parse(&bytes).filter(|_| owner() == Some(before))
}
