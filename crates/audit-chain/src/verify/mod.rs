//! Checks a whole trail in one pass, on all cores, in bounded memory.
//!
//! Every line is checked for itself (canonical form, members, `record_hash`
//! over the bytes that were read) and then against the one in front of it.
//! Blocks of lines are checked at the same time by several threads, signatures
//! and all; the links between blocks, and what a trail says of itself, are
//! checked in order.

mod block;
mod control;
mod fault;
mod fold;
mod report;
mod segments;
mod signed;
mod source;

pub use fault::{Fault, FaultKind};
pub use report::{
    CosignedSize, HostKey, Identity, Incomplete, Mark, Outcome, Report, Signatures, StateAt,
    TrustedCheckpoint,
};

use crate::note::VerifierKey;
use block::summarise;
use control::{Context, KeyCache};
use fold::Fold;
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
    /// Keys of hosts that are known from elsewhere. With any other host's
    /// certificate a trail is still checked, and told from one of these.
    pub pins: Vec<VerifierKey>,
    /// Witnesses whose cosignatures are checked and told.
    pub witnesses: Vec<VerifierKey>,
    /// A number of records at which the root of the tree and the key in force
    /// are wanted, to compare them with a checkpoint from elsewhere.
    pub root_at: Option<u64>,
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
        queue: Mutex::new(Queue::new(options)),
        moved: Condvar::new(),
        stop: AtomicBool::new(false),
        context: Context {
            witnesses: options.witnesses.clone(),
            root_at: options.root_at,
            keys: KeyCache::default(),
        },
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
const WINDOW: usize = 16;

struct Shared<R> {
    source: Mutex<Source<R>>,
    queue: Mutex<Queue>,
    moved: Condvar,
    /// A fault was found; what follows does not matter.
    stop: AtomicBool,
    context: Context,
}

/// Puts summaries back into the order of the trail.
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
                self.deliver(number, summarise(block.bytes(), &self.context));
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
    fn new(options: &VerifyOptions) -> Self {
        Self {
            fold: Fold::new(options.pins.clone(), options.root_at),
            next: 0,
            waiting: BTreeMap::new(),
            error: None,
        }
    }

    fn take_next(&mut self) -> Option<block::Summary> {
        let summary = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(summary)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
