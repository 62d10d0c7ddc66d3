//! Places of interfaces (`slots` in frames.bpf.c), in memory that is shared
//! with the programs.

use super::layout::BpfFrameLosses;
use crate::bpf::mapped::Mapped;
use aya::maps::Map;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Words of `struct slot`, and which of them holds what.
const WORDS: usize = 16;
const LOST_FRAMES: [usize; 2] = [0, 1];
const LOST_BYTES: [usize; 2] = [2, 3];
const UNREAD: usize = 4;
const REFUSED: usize = 5;
const HANDED: usize = 6;
const TAKEN: usize = 7;
const REMOVED: usize = 9;
const OPEN: usize = 11;
/// Which watch the place is; the programs do not ask.
const OWNER: usize = 12;

/// All places, and which of them are free.
pub(super) struct Slots {
    places: Mapped,
    /// The place behind them, of what all have together.
    all: u32,
    ledger: Mutex<Ledger>,
}

struct Ledger {
    free: Vec<u32>,
    /// The number of the latest watch.
    owners: u32,
}

/// A place that is one watch's until it is given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) index: u32,
    /// The number of the watch, which no other has.
    pub(super) owner: u32,
}

impl Slots {
    /// Maps `count` places, and the one behind them.
    pub(super) fn of(map: Map, count: u32) -> io::Result<Self> {
        let words = (usize::try_from(count).unwrap_or_default() + 1) * WORDS;
        Ok(Self {
            places: Mapped::of(map, words)?,
            all: count,
            ledger: Mutex::new(Ledger {
                free: (0..count).rev().collect(),
                owners: 0,
            }),
        })
    }

    /// Takes a place, and opens it; `None` where all are taken.
    pub(super) fn take(&self) -> Option<Place> {
        let mut ledger = self.ledger();
        let index = ledger.free.pop()?;
        ledger.owners = ledger.owners.checked_add(1)?;
        let owner = ledger.owners;
        for word in self.words(index) {
            word.store(0, Ordering::Relaxed);
        }
        self.store(index, OWNER, owner.into());
        self.store(index, OPEN, 1);
        Some(Place { index, owner })
    }

    /// Gives a place back, when nothing writes to it any more.
    pub(super) fn give_back(&self, place: Place) {
        self.ledger().free.push(place.index);
    }

    /// Nothing more is counted or handed over there.
    pub(super) fn close(&self, place: Place) {
        self.store(place.index, OPEN, 0);
    }

    /// So many bytes of a watch's frames were taken out of the ring. Its place may be
    /// another's by now.
    pub(super) fn taken(&self, index: u32, owner: u32, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let now = self.words(index).get(OWNER);
        if now.is_some_and(|now| now.load(Ordering::Relaxed) == owner.into()) {
            self.add(index, TAKEN, bytes);
        }
        self.add(self.all, TAKEN, bytes);
    }

    /// Whether frames of it are still in the ring.
    pub(super) fn waits(&self, place: Place) -> bool {
        let words = self.words(place.index);
        let at = |at: usize| words.get(at).map(|word| word.load(Ordering::Acquire));
        at(HANDED) != at(TAKEN)
    }

    /// A flow of it was taken out of the table.
    pub(super) fn removed(&self, place: Place) {
        self.add(place.index, REMOVED, 1);
        self.removed_of_nobody();
    }

    /// A flow of a watch that is over was taken out of the table.
    pub(super) fn removed_of_nobody(&self) {
        self.add(self.all, REMOVED, 1);
    }

    pub(super) fn losses(&self, place: Place) -> BpfFrameLosses {
        let words = self.words(place.index);
        let at = |at: usize| {
            let word = words.get(at);
            word.map_or(0, |word| word.load(Ordering::Relaxed))
        };
        BpfFrameLosses {
            frames: LOST_FRAMES.map(at),
            bytes: LOST_BYTES.map(at),
            unread: at(UNREAD),
            flows: at(REFUSED),
        }
    }

    fn words(&self, index: u32) -> &[AtomicU64] {
        let at = usize::try_from(index).unwrap_or_default() * WORDS;
        self.places.words().get(at..at + WORDS).unwrap_or_default()
    }

    fn store(&self, index: u32, at: usize, value: u64) {
        if let Some(word) = self.words(index).get(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn add(&self, index: u32, at: usize, value: u64) {
        if let Some(word) = self.words(index).get(at) {
            word.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
