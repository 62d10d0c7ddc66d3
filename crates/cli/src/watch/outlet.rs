//! The way of judged events to a trail: a thread of its own, or one that
//! writes many trails.

use super::trail::{Appender, Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

/// Names one sandbox among many, for as long as this program runs.
pub(crate) type Key = u64;

/// Where entries go.
#[derive(Clone)]
pub(crate) enum Outlet {
    /// To a thread of its own, whose queue is bounded.
    Own(SyncSender<Entry>, Arc<Load>),
    /// To the thread that writes many.
    Shared(Lane),
}

/// What the thread that writes many trails gets.
pub(crate) enum Parcel {
    /// A new trail.
    Open(Key, Box<Appender>, Arc<Load>),
    /// Something for one that was opened.
    Entry(Key, Entry),
    /// Nothing follows.
    Close,
}

/// The trail can take no more.
#[derive(Debug)]
pub(crate) struct TrailFailed;

/// One sandbox's way through a queue that many share.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(crate) key: Key,
    pub(crate) queue: Sender<Parcel>,
    pub(crate) load: Arc<Load>,
    /// Wait where much waits already; for those whom nobody waits for.
    pub(crate) patient: bool,
}

/// What of one sandbox waits in a queue. Collectors look at it before they
/// read on, so that a queue that many share is bounded by sandbox and one that
/// floods fills its own ring, not the others' queue.
#[derive(Debug, Default)]
pub(crate) struct Load {
    waiting: AtomicUsize,
    failed: AtomicBool,
}

/// Entries of one sandbox that may wait before its collectors pause.
const MOST_WAITING: usize = 4096;
/// Entries of one sandbox that may wait before what can wait in the flow table
/// does, so that its frames go on being read.
const MANY_WAITING: usize = 2048;

impl Outlet {
    /// Waits while too much waits already, for those who may.
    pub(crate) fn await_room(&self) {
        if let Self::Shared(lane) = self {
            lane.await_room();
        }
    }

    pub(crate) fn send(&self, entry: Entry) -> Result<(), TrailFailed> {
        match self {
            Self::Own(queue, load) => {
                load.waiting.fetch_add(1, Ordering::Relaxed);
                queue.send(entry).map_err(|_| TrailFailed)
            }
            Self::Shared(lane) => lane.send(entry),
        }
    }

    /// How many entries may come without anybody having to wait.
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::Own(_, load) | Self::Shared(Lane { load, .. }) => load.room(),
        }
    }
}

impl Lane {
    fn await_room(&self) {
        while self.patient && self.load.is_full() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&self, entry: Entry) -> Result<(), TrailFailed> {
        if self.load.has_failed() {
            return Err(TrailFailed);
        }
        self.load.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue
            .send(Parcel::Entry(self.key, entry))
            .map_err(|_| TrailFailed)
    }
}

impl Load {
    /// Whether more waits than may.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > MOST_WAITING && !self.has_failed()
    }

    fn room(&self) -> usize {
        MANY_WAITING.saturating_sub(self.waiting.load(Ordering::Relaxed))
    }

    pub(crate) fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}
