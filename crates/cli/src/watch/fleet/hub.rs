//! What counts the frames of many sandboxes, as the thread that captures them
//! reads it.

use super::early::Early;
use super::sandbox::Sandbox;
use crate::watch::outlet::Key;
use sandtrace_capture::network::{Heard, NetworkHubReader};
use sandtrace_sys::clock;
use std::collections::{BTreeMap, BTreeSet};

/// Frames read in one go, so that other events are not starved by a flood.
const FRAMES_AT_ONCE: usize = 8_192;

/// Goes until everything was read that was there when the first began: the
/// ring holds fewer frames than these are.
const GOES: usize = 16;

/// Time between two looks at the sums.
const SUMS_US: u64 = 1_000_000;

/// The sandboxes of one capture thread.
type Sandboxes = BTreeMap<Key, Box<Sandbox>>;

pub(super) struct Hub {
    reader: NetworkHubReader,
    /// Whose each interface is, by the interface's number.
    owners: BTreeMap<u32, Key>,
    /// Frames of interfaces that are in nobody's hands yet.
    early: Early,
    /// When frames are to be looked for without a wake-up.
    again_us: Option<u64>,
    sums_us: u64,
    /// No flow was in the table at the last look, and no frame came since: a
    /// flow's first frame is handed over.
    is_quiet: bool,
}

impl Hub {
    pub(super) fn new(reader: NetworkHubReader) -> Self {
        Self {
            reader,
            owners: BTreeMap::new(),
            early: Early::default(),
            again_us: None,
            sums_us: clock::boot_us() + SUMS_US,
            is_quiet: false,
        }
    }

    /// An interface of a sandbox is in its hands. It is told what came before.
    pub(super) fn add(&mut self, number: u32, key: Key, sandbox: &mut Sandbox) {
        self.owners.insert(number, key);
        for kept in self.early.take(number) {
            kept.tell(|heard| tell(sandbox, number, heard));
        }
    }

    /// A sandbox is let go.
    pub(super) fn forget(&mut self, key: Key) {
        self.owners.retain(|_, owner| *owner != key);
    }

    /// When [`hear`](Self::hear) is due at the latest, in microseconds of the
    /// boot clock.
    pub(super) fn due_us(&self) -> u64 {
        self.again_us
            .map_or(self.sums_us, |again| again.min(self.sums_us))
    }

    pub(super) fn is_due(&self) -> bool {
        self.due_us() <= clock::boot_us()
    }

    /// Tells sandboxes what is theirs. Answers who was told anything.
    pub(super) fn hear(&mut self, sandboxes: &mut Sandboxes) -> BTreeSet<Key> {
        let mut told = BTreeSet::new();
        self.frames(sandboxes, &mut told);
        let now = clock::boot_us();
        if self.sums_us <= now {
            if !self.is_quiet {
                self.sums(sandboxes, &mut told);
            }
            self.early.clear_out();
            self.sums_us = now + SUMS_US;
        }
        told
    }

    /// Tells them all that there is by now. Answers who was told anything.
    pub(super) fn empty(&mut self, sandboxes: &mut Sandboxes) -> BTreeSet<Key> {
        let mut told = BTreeSet::new();
        for _ in 0..GOES {
            if self.frames(sandboxes, &mut told) < FRAMES_AT_ONCE {
                break;
            }
        }
        told
    }

    fn frames(&mut self, sandboxes: &mut Sandboxes, told: &mut BTreeSet<Key>) -> usize {
        let (owners, early) = (&self.owners, &mut self.early);
        let mut last = None;
        let read = self.reader.read(FRAMES_AT_ONCE, |number, heard| {
            let Some(key) = owners.get(&number) else {
                return early.keep(number, heard);
            };
            if let Some(sandbox) = sandboxes.get_mut(key) {
                tell(sandbox, number, heard);
            }
            if last.replace(*key) != Some(*key) {
                told.insert(*key);
            }
        });
        self.is_quiet &= read == 0;
        let again = u64::try_from(NetworkHubReader::LOOK_AGAIN.as_micros()).unwrap_or_default();
        self.again_us = (read > 0).then(|| clock::boot_us() + again);
        read
    }

    fn sums(&mut self, sandboxes: &mut Sandboxes, told: &mut BTreeSet<Key>) {
        let (owners, early) = (&self.owners, &self.early);
        let mut is_empty = true;
        let read = self.reader.read_sums(|number, counts| {
            is_empty = false;
            let key = owners.get(&number);
            told.extend(key);
            let sandbox = key.and_then(|key| sandboxes.get_mut(key));
            let network = sandbox.and_then(|sandbox| sandbox.numbered(number));
            let is_watched = network.is_some();
            if let Some((network, judge)) = network {
                network.take_counts(counts, judge);
            }
            is_watched || early.has(number)
        });
        // What could not be read now shows when sums and counters are compared.
        self.is_quiet = is_empty && read.is_ok();
    }
}

fn tell(sandbox: &mut Sandbox, number: u32, heard: &Heard<'_>) {
    let is_full = sandbox.load.is_full();
    match sandbox.numbered(number) {
        Some((network, judge)) if is_full => network.miss(heard, judge),
        Some((network, judge)) => network.hear(heard, judge),
        None => {}
    }
}
