//! Tallies, each in its own place of an array (`quicks` in syscalls.bpf.c),
//! in memory that is shared with the programs.

use super::mapped::{Mapped, place};
use super::tables::BpfTally;
use aya::maps::Map;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// `QUICK_BITS` there.
const BITS: u32 = 14;
const PLACES: usize = 1 << BITS;

/// Words of `struct quick` there.
const WORDS: usize = 8;

/// The array, mapped.
pub(super) struct Quicks(Mapped);

impl Quicks {
    pub(super) fn of(map: Map) -> io::Result<Self> {
        Mapped::of(map, PLACES * WORDS).map(Self)
    }

    /// Every tally that has a place of its own.
    pub(super) fn tallies(&self) -> impl Iterator<Item = BpfTally> {
        self.0.words().chunks_exact(WORDS).filter_map(tally)
    }

    /// Frees the place of a tally; `false` where it has none of its own. Its
    /// thread must have ended, or have been let go.
    pub(super) fn forget(&self, tally: &BpfTally) -> bool {
        let at = place((tally.serial << 9).wrapping_add(tally.call()), BITS) * WORDS;
        let Some([key, rest @ ..]) = self.0.words().get(at..at + WORDS) else {
            return false;
        };
        if key.load(Ordering::Acquire).to_le_bytes() != tally.key() {
            return false;
        }
        for word in rest {
            word.store(0, Ordering::Relaxed);
        }
        // Only now another may take it.
        key.store(0, Ordering::Release);
        true
    }
}

fn tally(slot: &[AtomicU64]) -> Option<BpfTally> {
    let [key, rest @ ..] = slot else { return None };
    let key = key.load(Ordering::Acquire);
    if key == 0 {
        return None;
    }
    let values = rest.iter().map(|word| word.load(Ordering::Relaxed));
    let bytes: Vec<u8> = values.flat_map(u64::to_ne_bytes).collect();
    BpfTally::parse(&key.to_ne_bytes(), &bytes)
}
