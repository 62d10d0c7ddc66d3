//! The threads that scan the disks of all sandboxes in turns.

use super::SCANNING;
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

/// A scan that takes longer is a long one: of those that wait for their turn none
/// waits for several of these.
const LONG: Duration = Duration::from_millis(500);

/// Disks and when each is to be scanned next.
pub(super) struct Scans {
    due: Mutex<Due>,
    changed: Condvar,
    interval: Duration,
    wakes: Wakes,
}

#[derive(Default)]
struct Due {
    short: Turns,
    /// Those whose last scan was a long one. They leave a thread to the others.
    long: Turns,
    /// How many of them are being scanned.
    lasting: usize,
    /// When each disk is due that nobody scans at the moment.
    turns: HashMap<u64, Turn>,
    number: u64,
    over: bool,
}

type Turns = BTreeMap<(Instant, u64), SharedDisk>;

/// When a disk is to be scanned.
#[derive(Clone, Copy)]
struct Turn {
    due: Instant,
    /// No event brings it before this.
    rested: Instant,
    is_long: bool,
}

/// A disk that is to be scanned now.
struct Scan {
    number: u64,
    disk: SharedDisk,
    is_long: bool,
}

fn first(turns: &Turns) -> Option<(Instant, u64)> {
    turns.first_key_value().map(|(key, _)| *key)
}

impl Due {
    fn add(&mut self, number: u64, turn: Turn, disk: SharedDisk) {
        self.of(turn.is_long).insert((turn.due, number), disk);
        self.turns.insert(number, turn);
    }

    fn of(&mut self, is_long: bool) -> &mut Turns {
        if is_long {
            &mut self.long
        } else {
            &mut self.short
        }
    }

    /// When the next may be scanned, whether it is a long one, and its number.
    fn first(&self) -> Option<(Instant, bool, u64)> {
        let long = first(&self.long).filter(|_| self.lasting < SCANNING - 1);
        let [short, long] = [(first(&self.short), false), (long, true)]
            .map(|(first, is_long)| first.map(|(at, number)| (at, is_long, number)));
        short.into_iter().chain(long).min()
    }

    /// The next that is due, or else when one is.
    fn take(&mut self, now: Instant) -> Result<Scan, Option<Instant>> {
        let (at, is_long, number) = self.first().ok_or(None)?;
        if at > now {
            return Err(Some(at));
        }
        let disk = self.of(is_long).remove(&(at, number)).ok_or(None)?;
        self.turns.remove(&number);
        self.lasting += usize::from(is_long);
        Ok(Scan {
            number,
            disk,
            is_long,
        })
    }

    /// Brings a disk forward, as far as may be.
    fn wake(&mut self, number: u64, now: Instant) {
        let Some(turn) = self.turns.get_mut(&number) else {
            return;
        };
        let due = turn.rested.max(now).min(turn.due);
        let before = std::mem::replace(&mut turn.due, due);
        let is_long = turn.is_long;
        let turns = self.of(is_long);
        if let Some(disk) = turns.remove(&(before, number)) {
            turns.insert((due, number), disk);
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
        let is_long = matches!(&*lock(&disk), DiskSlot::New(new) if new.is_large());
        let mut due = lock(&self.due);
        due.number += 1;
        let number = due.number;
        let turn = Turn {
            due: now,
            rested: now,
            is_long,
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
        while let Some(next) = self.next() {
            let begun = Instant::now();
            let goes_on = scan(&next.disk);
            if next.is_long {
                lock(&self.due).lasting -= 1;
                self.changed.notify_one();
            }
            if goes_on {
                self.schedule(next.number, &next.disk, begun.elapsed());
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
            is_long: took >= LONG,
        };
        let mut due = lock(&self.due);
        due.add(number, turn, SharedDisk::clone(disk));
        // Whoever waits does so for the first.
        if due.first().is_some_and(|(_, _, first)| first == number) {
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

    fn next(&self) -> Option<Scan> {
        let mut due = lock(&self.due);
        loop {
            if due.over {
                return None;
            }
            let now = Instant::now();
            let next = match due.take(now) {
                Ok(scan) => return Some(scan),
                Err(next) => next,
            };
            let wait = next.map_or(Duration::from_secs(60), |at| (at - now).max(GRAIN));
            let waited = self.changed.wait_timeout(due, wait);
            due = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Long ones are due first, and leave a thread to the others all the same.
    #[test]
    fn one_thread_is_left_to_those_that_are_soon_scanned() {
        let mut due = Due::default();
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        for (number, is_long, after) in [(1, true, 0), (2, true, 1), (3, false, 2), (4, false, 3)] {
            let at = start + Duration::from_millis(after);
            let turn = Turn {
                due: at,
                rested: at,
                is_long,
            };
            due.add(number, turn, Arc::new(Mutex::new(DiskSlot::Ended)));
        }
        let mut next = || due.take(now).ok().map(|scan| scan.number);
        assert_eq!(
            [next(), next(), next(), next()],
            [Some(1), Some(3), Some(4), None]
        );
        due.lasting -= 1;
        assert_eq!(due.take(now).ok().map(|scan| scan.number), Some(2));
    }
}
