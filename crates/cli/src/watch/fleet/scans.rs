//! The threads that scan the disks of all sandboxes in turns.

use super::sandbox::{DiskSlot, SharedDisk, lock};
use sandtrace_event::QuiesceMethod;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Disks and when each is to be scanned next.
pub(super) struct Scans {
    due: Mutex<Due>,
    changed: Condvar,
    interval: Duration,
}

#[derive(Default)]
struct Due {
    disks: BTreeMap<(Instant, u64), SharedDisk>,
    number: u64,
    over: bool,
}

impl Scans {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            due: Mutex::default(),
            changed: Condvar::new(),
            interval,
        }
    }

    /// Takes a disk's baseline as soon as a thread is free.
    pub(super) fn add(&self, disk: SharedDisk) {
        self.schedule(disk, Instant::now());
    }

    pub(super) fn stop(&self) {
        lock(&self.due).over = true;
        self.changed.notify_all();
    }

    fn schedule(&self, disk: SharedDisk, at: Instant) {
        let mut due = lock(&self.due);
        due.number += 1;
        let number = due.number;
        due.disks.insert((at, number), disk);
        self.changed.notify_one();
    }

    /// Runs until [`Self::stop`].
    pub(super) fn run(&self) {
        while let Some(disk) = self.next() {
            if scan(&disk) {
                self.schedule(disk, Instant::now() + self.interval);
            }
        }
    }

    fn next(&self) -> Option<SharedDisk> {
        let mut due = lock(&self.due);
        loop {
            if due.over {
                return None;
            }
            let now = Instant::now();
            let first = due.disks.first_key_value().map(|((at, _), _)| *at);
            match first {
                Some(at) if at <= now => return due.disks.pop_first().map(|(_, disk)| disk),
                first => {
                    let wait = first.map_or(Duration::from_secs(60), |at| at - now);
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
