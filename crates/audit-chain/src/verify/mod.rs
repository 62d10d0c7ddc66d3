//! Checks a whole trail in one pass, on all cores, in bounded memory.
//!
//! Every line is checked for itself (canonical form, members, `record_hash`
//! over the bytes that were read) and then against the one in front of it.
//! Blocks of lines are checked at the same time by several threads; the links
//! between blocks are checked in order.

mod block;
mod fault;
mod fold;
mod source;

pub use fault::{Fault, FaultKind};

use crate::Counts;
use crate::merkle::CompactRange;
use block::summarise;
use fold::Fold;
use sandtrace_event::{Digest, GapUnit, TrailEnd, TrailStart, WallTime};
use source::{Block, Source};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The trail may still be written: neither a missing `trail_end` nor a
    /// partial last line makes it incomplete.
    pub live: bool,
    /// Threads to use; all cores by default.
    pub threads: Option<NonZero<usize>>,
    /// Also computes the Merkle tree over the records.
    pub tree: bool,
}

/// What a trail proves about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The answer.
    pub outcome: Outcome,
    /// Records before the first fault.
    pub records: u64,
    /// Bytes of these records with their line feeds.
    pub bytes: u64,
    /// Bytes after the last line feed, where the trail merely stops there.
    pub partial_bytes: u64,
    /// Whose trail it is, by its first record.
    pub identity: Option<Identity>,
    /// First good record.
    pub first: Option<Mark>,
    /// Last good record.
    pub last: Option<Mark>,
    /// Good records of each kind.
    pub counts: Counts,
    /// What the `capture_gap` records say was lost, per unit.
    pub lost: BTreeMap<GapUnit, u64>,
    /// Payload of the first record.
    pub start: Option<TrailStart>,
    /// Payload of the last record, where the trail ended in order.
    pub end: Option<TrailEnd>,
    /// The Merkle tree over the records before the first fault, in order to
    /// compare its root with one that is known from elsewhere; empty where
    /// [`VerifyOptions::tree`] does not ask for it.
    pub tree: CompactRange,
}

/// The answer of [`verify()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every record is as it was written and none is missing in between.
    Intact {
        /// The trail ends with `trail_end`; false only for a live one.
        sealed: bool,
    },
    /// Somebody changed the trail.
    Tampered(Fault),
    /// These bytes are no trail.
    Malformed(Fault),
    /// What is there is intact, but the trail has no end.
    Incomplete(Incomplete),
    /// There is nothing at all, which proves nothing.
    Empty,
}

/// Where a trail stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// After a whole record that is no `trail_end`.
    #[error("the trail stops without a trail_end")]
    NoEnd,
    /// Inside of a line.
    #[error(
        "line {line}, byte {byte_offset}: the trail stops inside of a line after {bytes} bytes"
    )]
    CutOff {
        /// Where the partial line begins.
        byte_offset: u64,
        /// How much of it there is.
        bytes: u64,
        /// Number of the line, from 1.
        line: u64,
    },
}

/// Whose trail it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The agent.
    pub agent_id: String,
    /// The sandbox.
    pub sandbox_id: String,
    /// The trail.
    pub trace_id: String,
}

/// One record of the trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub record_hash: Digest,
    /// Its time; absent where the text is of the right shape but no time.
    pub wall_time: Option<WallTime>,
}

/// Checks a trail from its first byte to its last.
///
/// Everything found in the trail is in the [`Report`]; it never fails for
/// what the bytes are. Memory is bounded, whatever the size.
///
/// # Errors
/// The input cannot be read.
pub fn verify<R: Read + Send>(input: R, options: &VerifyOptions) -> io::Result<Report> {
    let shared = Shared {
        source: Mutex::new(Source::new(input)),
        queue: Mutex::new(Queue::default()),
        moved: Condvar::new(),
        stop: AtomicBool::new(false),
        with_tree: options.tree,
    };
    let mut block = Block::new();
    // Most trails fit into one block; no thread is worth starting for these.
    if shared.step(&mut block) {
        let threads = options.threads.map_or_else(cores, NonZero::get);
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| shared.work(Block::new()));
            }
            shared.work(block);
        });
    }
    let queue = shared
        .queue
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    match queue.error {
        // What cannot be read behind a fault does not matter.
        Some(error) if !queue.fold.has_fault() => Err(error),
        _ => Ok(queue.fold.finish(options.live)),
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Summaries that may wait for one in front of them.
const WINDOW: usize = 64;

struct Shared<R> {
    source: Mutex<Source<R>>,
    queue: Mutex<Queue>,
    moved: Condvar,
    /// A fault was found; what follows does not matter.
    stop: AtomicBool,
    with_tree: bool,
}

/// Puts summaries back into the order of the trail.
#[derive(Default)]
struct Queue {
    fold: Fold,
    next: u64,
    waiting: BTreeMap<u64, block::Summary>,
    error: Option<io::Error>,
}

impl<R: Read> Shared<R> {
    fn work(&self, mut block: Block) {
        while self.step(&mut block) {}
    }

    /// Takes the next block, if there is one; false once nothing is left to do.
    fn step(&self, block: &mut Block) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let mut source = lock(&self.source);
        let filled = source.fill(block);
        let ended = source.has_ended();
        drop(source);
        match filled {
            Ok(Some(number)) => {
                self.deliver(number, summarise(block.bytes(), self.with_tree));
                !ended
            }
            Ok(None) => false,
            Err(error) => {
                let mut queue = lock(&self.queue);
                queue.error = Some(error);
                self.halt(&queue);
                false
            }
        }
    }

    fn deliver(&self, number: u64, summary: block::Summary) {
        let mut queue = lock(&self.queue);
        queue.waiting.insert(number, summary);
        while let Some(summary) = queue.take_next() {
            if !queue.fold.absorb(summary) {
                self.halt(&queue);
                return;
            }
        }
        self.moved.notify_all();
        // The worker with the oldest block never waits here: its summary has
        // just left the queue.
        while queue.waiting.len() > WINDOW && !self.stop.load(Ordering::Relaxed) {
            queue = self
                .moved
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The lock is held, so that nobody is between looking at `stop` and waiting.
    fn halt(&self, _locked: &MutexGuard<'_, Queue>) {
        self.stop.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }
}

impl Queue {
    fn take_next(&mut self) -> Option<block::Summary> {
        let summary = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(summary)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
