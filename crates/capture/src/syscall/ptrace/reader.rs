//! Reading a tracee's memory without being held up by it.
//!
//! A page can be one that somebody else has to bring in, who never does
//! (userfaultfd(2), FUSE): whoever reads it waits with all tracees stopped.
//! Another thread does the reading, for so long and no longer.

use sandtrace_sys::ptrace::read_memory;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How long one read may take.
const PATIENCE: Duration = Duration::from_millis(100);

/// Readers that may be left waiting; after that nothing is read any more.
const MOST_STUCK: usize = 8;

/// Thread, address and bytes to be read.
type Order = (u32, u64, usize);

struct Hand {
    orders: SyncSender<Order>,
    answers: Receiver<Vec<u8>>,
}

/// Reads for one tracing thread.
#[derive(Default)]
pub(super) struct Reader {
    hand: RefCell<Option<Hand>>,
    stuck: Cell<usize>,
    /// Processes that are never read from again.
    avoided: RefCell<HashSet<u32>>,
}

impl Reader {
    /// Up to `most` bytes of a thread's memory; none where they do not come in time.
    pub(super) fn read(&self, pid: u32, tid: u32, address: u64, most: usize) -> Vec<u8> {
        if self.stuck.get() >= MOST_STUCK || self.avoided.borrow().contains(&pid) {
            return Vec::new();
        }
        let mut hand = self.hand.borrow_mut();
        if hand.is_none() {
            *hand = begin();
        }
        let answer = hand.as_ref().and_then(|hand| {
            hand.orders.send((tid, address, most)).ok()?;
            hand.answers.recv_timeout(PATIENCE).ok()
        });
        answer.unwrap_or_else(|| {
            // It ends when its read does, at the latest with the process.
            *hand = None;
            self.stuck.set(self.stuck.get() + 1);
            self.avoided.borrow_mut().insert(pid);
            Vec::new()
        })
    }

    /// A process has ended: another may get its id.
    pub(super) fn forget(&self, pid: u32) {
        self.avoided.borrow_mut().remove(&pid);
    }
}

fn begin() -> Option<Hand> {
    let (orders, ordered) = sync_channel::<Order>(1);
    let (answer, answers) = sync_channel(1);
    let thread = std::thread::Builder::new().name("ptrace-reader".to_owned());
    let started = thread.spawn(move || {
        for (tid, address, most) in ordered {
            if answer.send(read_memory(tid, address, most)).is_err() {
                return;
            }
        }
    });
    started.is_ok().then_some(Hand { orders, answers })
}
