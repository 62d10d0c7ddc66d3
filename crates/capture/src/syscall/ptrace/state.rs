//! What the tracing thread has seen, and what others take from it.

use crate::syscall::waiting::Waiting;
use crate::syscall::{CallKey, Counts, Loss, LossKind, Tally, ThreadInfo};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// Kinds of calls, over all threads, between two looks.
const MAX_KEYS: usize = 262_144;

/// Between the tracing thread and those who take.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) seen: Mutex<Seen>,
    /// The tracing thread shall detach and end.
    pub(super) stop: AtomicBool,
    /// It has ended.
    pub(super) ended: AtomicBool,
}

/// What was seen since it was last taken.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) facts: Waiting,
    calls: HashMap<CallKey, Tally>,
    /// Threads that live, and those that ended since counts were taken.
    pub(super) threads: HashMap<u32, ThreadInfo>,
    ended: HashSet<u32>,
    uncounted: u64,
    /// Processes that were there when tracing began, and that there was no room for.
    pub(super) left_out: u64,
    /// Threads that could not be traced.
    pub(super) untraced: u64,
    pub(super) trouble: Option<String>,
}

impl Seen {
    pub(super) fn count(&mut self, key: CallKey, value: i64, is_error: bool, time_ns: u64) {
        if self.calls.len() >= MAX_KEYS && !self.calls.contains_key(&key) {
            self.uncounted = self.uncounted.saturating_add(1);
            return;
        }
        let tally = self.calls.entry(key).or_default();
        tally.add(value, is_error, time_ns);
    }

    /// A thread begins, or is another's: its id may be one that was used before.
    pub(super) fn begins(&mut self, tid: u32, thread: ThreadInfo) {
        self.ended.remove(&tid);
        self.threads.insert(tid, thread);
    }

    /// A thread has ended; what is known of it is kept for its last counts.
    pub(super) fn ends(&mut self, tid: u32) {
        self.ended.insert(tid);
    }

    pub(super) fn take_counts(&mut self) -> Counts {
        let threads = &self.threads;
        let calls = self.calls.drain().map(|(key, tally)| {
            let thread = threads.get(&key.tid).cloned();
            let thread = thread.unwrap_or(ThreadInfo {
                pid: key.tid,
                name: Vec::new(),
            });
            (key, thread, tally)
        });
        let calls = calls.collect();
        for tid in self.ended.drain() {
            self.threads.remove(&tid);
        }
        Counts {
            calls,
            kvm_exits: Vec::new(),
            losses: self.take_losses(),
        }
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        let uncounted = Loss {
            kind: LossKind::Counts,
            count: std::mem::take(&mut self.uncounted),
            detail: "too many threads made too many kinds of calls".to_owned(),
        };
        let dropped = Loss {
            kind: LossKind::Facts,
            count: self.facts.take_dropped(),
            detail: "security-relevant calls came faster than they were taken".to_owned(),
        };
        let left_out = Loss {
            kind: LossKind::Threads,
            count: std::mem::take(&mut self.left_out),
            detail: "more processes than are traced: some that the VMM had started before \
                     are not followed"
                .to_owned(),
        };
        let untraced = Loss {
            kind: LossKind::Tracing,
            count: std::mem::take(&mut self.untraced),
            detail: self.trouble.take().unwrap_or_default(),
        };
        let losses = [uncounted, dropped, left_out, untraced];
        losses.into_iter().filter(|loss| loss.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_used_again_is_known() {
        let thread = |pid: u32| ThreadInfo {
            pid,
            name: b"x".to_vec(),
        };
        let mut seen = Seen::default();
        seen.begins(7, thread(1));
        seen.ends(7);
        seen.begins(7, thread(2));
        seen.take_counts();
        assert_eq!(seen.threads.get(&7), Some(&thread(2)));
        seen.ends(7);
        seen.take_counts();
        assert_eq!(seen.threads.get(&7), None);
    }
}
