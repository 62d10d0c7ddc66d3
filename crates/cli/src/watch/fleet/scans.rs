//! The threads that scan the disks of all sandboxes in turns.

use super::sandbox::{DiskSlot, SharedDisk, lock};
use super::wakes::Wakes;
use crate::watch::files::REST;
use sandtrace_event::QuiesceMethod;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Scans that events bring forward take no more than one part in so many of a
/// thread's time, for each disk.
const SHARE: u32 = 10;

/// Threads wake no more often than this: disks that are due one soon after
/// another are scanned at one go.
const GRAIN: Duration = Duration::from_millis(20);

/// Disks and when each is to be scanned next.
pub(super) struct Scans {
    due: Mutex<Due>,
    changed: Condvar,
    interval: Duration,
    wakes: Wakes,
}

#[derive(Default)]
struct Due {
    disks: BTreeMap<(Instant, u64), SharedDisk>,
    /// When each disk is due that nobody scans at the moment.
    turns: HashMap<u64, Turn>,
    number: u64,
    over: bool,
}

/// When a disk is to be scanned.
#[derive(Clone, Copy)]
struct Turn {
    due: Instant,
    /// No event brings it before this.
    rested: Instant,
}

impl Due {
    fn add(&mut self, number: u64, turn: Turn, disk: SharedDisk) {
        self.disks.insert((turn.due, number), disk);
        self.turns.insert(number, turn);
    }

    fn take_first(&mut self) -> Option<(u64, SharedDisk)> {
        let ((_, number), disk) = self.disks.pop_first()?;
        self.turns.remove(&number);
        Some((number, disk))
    }

    fn is_first(&self, number: u64) -> bool {
        let first = self.disks.first_key_value();
        first.is_some_and(|((_, first), _)| *first == number)
    }

    /// Brings a disk forward, as far as may be.
    fn wake(&mut self, number: u64, now: Instant) {
        let Some(turn) = self.turns.get_mut(&number) else {
            return;
        };
        let due = turn.rested.max(now).min(turn.due);
        let before = std::mem::replace(&mut turn.due, due);
        if let Some(disk) = self.disks.remove(&(before, number)) {
            self.disks.insert((due, number), disk);
        }
    }
}

impl Scans {
    pub(super) fn new(interval: Duration) -> io::Result<Self> {
        Ok(Self {
            due: Mutex::default(),
            changed: Condvar::new(),
            interval,
            wakes: Wakes::open()?,
        })
    }

    /// Takes a disk's baseline as soon as a thread is free.
    pub(super) fn add(&self, disk: SharedDisk) {
        let now = Instant::now();
        let mut due = lock(&self.due);
        due.number += 1;
        let number = due.number;
        let turn = Turn {
            due: now,
            rested: now,
        };
        due.add(number, turn, disk);
        self.changed.notify_one();
    }

    pub(super) fn stop(&self) {
        self.wakes.stop();
        lock(&self.due).over = true;
        self.changed.notify_all();
    }

    /// Runs until [`Self::stop`].
    pub(super) fn run(&self) {
        while let Some((number, disk)) = self.next() {
            let begun = Instant::now();
            if scan(&disk) {
                self.schedule(number, &disk, begun.elapsed());
            }
        }
    }

    /// Brings forward what is written to, until [`Self::stop`].
    pub(super) fn listen(&self) -> io::Result<()> {
        self.wakes.run(|number| {
            lock(&self.due).wake(number, Instant::now());
            self.changed.notify_one();
        })
    }

    fn schedule(&self, number: u64, disk: &SharedDisk, took: Duration) {
        let now = Instant::now();
        let rest = REST.max(took.saturating_mul(SHARE));
        let turn = Turn {
            due: now + self.interval,
            rested: now + rest.min(self.interval),
        };
        let mut due = lock(&self.due);
        due.add(number, turn, SharedDisk::clone(disk));
        // Whoever waits does so for the first.
        if due.is_first(number) {
            self.changed.notify_one();
        }
        drop(due);
        // Armed last: a queue that has something wakes at once.
        if let DiskSlot::Watched(watched) = &mut *lock(disk) {
            match (watched.wakeups(), watched.unheard.as_ref()) {
                (Some(queue), _) => self.wakes.arm(queue, number),
                (None, Some(why)) => self.wakes.tell(why),
                (None, None) => {}
            }
        }
    }

    fn next(&self) -> Option<(u64, SharedDisk)> {
        let mut due = lock(&self.due);
        loop {
            if due.over {
                return None;
            }
            let now = Instant::now();
            let first = due.disks.first_key_value().map(|((at, _), _)| *at);
            match first {
                Some(at) if at <= now => return due.take_first(),
                first => {
                    let wait = first.map_or(Duration::from_secs(60), |at| (at - now).max(GRAIN));
                    let waited = self.changed.wait_timeout(due, wait);
                    due = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                }
            }
        }
    }
}

/// Whether there is anything to scan later on.
fn scan(disk: &SharedDisk) -> bool {
    let mut slot = lock(disk);
    match std::mem::replace(&mut *slot, DiskSlot::Ended) {
        DiskSlot::New(disk) => {
            *slot = DiskSlot::Watched(Box::new(disk.attach()));
            true
        }
        DiskSlot::Watched(mut watched) => {
            watched.scan(QuiesceMethod::Live);
            *slot = DiskSlot::Watched(watched);
            true
        }
        DiskSlot::Ended => false,
    }
}
