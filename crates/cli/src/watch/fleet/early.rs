//! Frames that came before the thread that captures knew whose they are.
//!
//! An interface is attached by one thread and its frames are read by another:
//! what it sends in between, which may be a guest's first words, is kept.

use sandtrace_capture::network::{Heard, Kept};
use sandtrace_sys::clock;
use std::collections::BTreeMap;

/// Bytes that are kept of all interfaces, and of each: a flood is its own loss.
const ROOM: usize = 8 << 20;
const SHARE: usize = 256 << 10;

/// What nobody has asked for by then is of a watch that is over, or that never
/// came about. Microseconds.
const PATIENCE_US: u64 = 30_000_000;

#[derive(Default)]
pub(super) struct Early {
    interfaces: BTreeMap<u32, Interface>,
    bytes: usize,
}

/// What came of one.
#[derive(Default)]
struct Interface {
    frames: Vec<Kept>,
    since_us: u64,
    bytes: usize,
}

impl Early {
    /// Keeps a frame of an interface that nobody knows. Where there is no room
    /// the comparison of sums and counters tells of it.
    pub(super) fn keep(&mut self, number: u32, heard: &Heard<'_>) {
        let kept = heard.keep();
        let held = self.interfaces.get(&number).map_or(0, |it| it.bytes);
        if self.bytes + kept.size() > ROOM || held + kept.size() > SHARE {
            return;
        }
        let interface = self.interfaces.entry(number).or_insert_with(|| Interface {
            since_us: clock::boot_us(),
            ..Interface::default()
        });
        self.bytes += kept.size();
        interface.bytes += kept.size();
        interface.frames.push(kept);
    }

    /// Whether something was kept of an interface, whose sums are then wanted.
    pub(super) fn has(&self, number: u32) -> bool {
        self.interfaces.contains_key(&number)
    }

    /// What was kept of an interface that is known now.
    pub(super) fn take(&mut self, number: u32) -> Vec<Kept> {
        let Some(interface) = self.interfaces.remove(&number) else {
            return Vec::new();
        };
        self.bytes -= interface.bytes;
        interface.frames
    }

    /// Drops what nobody asks for.
    pub(super) fn clear_out(&mut self) {
        let now_us = clock::boot_us();
        let bytes = &mut self.bytes;
        self.interfaces.retain(|_, it| {
            let stays = now_us < it.since_us.saturating_add(PATIENCE_US);
            if !stays {
                *bytes -= it.bytes;
            }
            stays
        });
    }
}
