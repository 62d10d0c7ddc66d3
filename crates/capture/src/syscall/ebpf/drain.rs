//! From totals in the kernel's tables to what was added since the last look.

use super::convert::abi;
use crate::syscall::{CallKey, Tally, ThreadInfo};
use sandtrace_sys::bpf::{BpfError, BpfSyscalls, BpfTally, BpfThread};
use std::collections::{HashMap, HashSet};

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Drain {
    /// Totals by the thread's serial and the call.
    before: HashMap<(u32, u32, u32), Tally>,
    exits: HashMap<u32, u64>,
    /// Threads that nothing was known of.
    unknown: HashSet<u32>,
    /// Threads that were let go while they live.
    released: Vec<BpfThread>,
}

/// Something that one thread added.
pub(super) struct Added<'a> {
    /// Whose thread it is.
    pub(super) owner: u32,
    pub(super) thread: &'a BpfThread,
    pub(super) what: AddedKind,
}

pub(super) enum AddedKind {
    Calls(CallKey, Tally),
    KvmExits(u64),
}

impl Added<'_> {
    pub(super) fn info(&self) -> ThreadInfo {
        ThreadInfo {
            pid: self.thread.pid,
            name: self.thread.name.clone(),
        }
    }
}

impl Drain {
    /// These threads are not counted any more, though they live.
    pub(super) fn release(&mut self, threads: Vec<BpfThread>) {
        self.released.extend(threads);
    }

    /// Hands out the differences, and frees what ended threads took.
    pub(super) fn look(
        &mut self,
        programs: &mut BpfSyscalls,
        mut each: impl FnMut(Added<'_>),
    ) -> Result<(), BpfError> {
        // In this order: what ended before the counts are read has its last
        // counts among them, and a thread that made a call is found among
        // those that live or among those that ended after that.
        let ended = programs.ended()?;
        let tallies = programs.tallies()?;
        let live = programs.threads()?;
        let later = programs.ended()?;
        let ended_serials: Vec<u32> = ended.iter().map(|thread| thread.serial).collect();
        let released = std::mem::take(&mut self.released);
        let gone: HashMap<_, _> = by_serial(ended.into_iter().chain(released)).collect();
        let known: HashMap<_, _> = by_serial(live.into_iter().chain(later)).collect();

        let mut done = Vec::new();
        let mut unknown = HashSet::new();
        for tally in &tallies {
            let over = gone.get(&tally.serial);
            match over.or_else(|| known.get(&tally.serial)) {
                Some(thread) => self.calls(tally, thread, &mut each),
                // A thread that executes a program changes its place in the
                // table; one that is missing twice is none.
                None if self.unknown.contains(&tally.serial) => done.push(tally),
                None => _ = unknown.insert(tally.serial),
            }
            if over.is_some() {
                done.push(tally);
            }
        }
        self.unknown = unknown;
        for thread in gone.values().chain(known.values()) {
            self.kvm_exits(thread, &mut each);
        }
        for tally in &done {
            self.before.remove(&place(tally));
        }
        for serial in gone.keys() {
            self.exits.remove(serial);
        }
        programs.forget_tallies(done.into_iter());
        programs.forget_threads(ended_serials.into_iter());
        Ok(())
    }

    fn calls(&mut self, tally: &BpfTally, thread: &BpfThread, each: &mut impl FnMut(Added<'_>)) {
        let now = Tally {
            count: tally.count,
            errors: tally.errors,
            interrupted: tally.interrupted,
            time_ns: tally.time_ns,
        };
        let before = self.before.insert(place(tally), now);
        let since = difference(now, before.unwrap_or_default());
        if since.count > 0 {
            let key = CallKey {
                tid: thread.tid,
                abi: abi(tally.abi),
                number: tally.number,
            };
            each(Added {
                owner: thread.owner,
                thread,
                what: AddedKind::Calls(key, since),
            });
        }
    }

    fn kvm_exits(&mut self, thread: &BpfThread, each: &mut impl FnMut(Added<'_>)) {
        if thread.kvm_exits == 0 {
            return;
        }
        let before = self.exits.insert(thread.serial, thread.kvm_exits);
        let since = thread.kvm_exits.saturating_sub(before.unwrap_or_default());
        if since > 0 {
            each(Added {
                owner: thread.owner,
                thread,
                what: AddedKind::KvmExits(since),
            });
        }
    }
}

fn by_serial(threads: impl Iterator<Item = BpfThread>) -> impl Iterator<Item = (u32, BpfThread)> {
    threads.map(|thread| (thread.serial, thread))
}

fn place(tally: &BpfTally) -> (u32, u32, u32) {
    (tally.serial, tally.abi, tally.number)
}

fn difference(now: Tally, before: Tally) -> Tally {
    Tally {
        count: now.count.saturating_sub(before.count),
        errors: now.errors.saturating_sub(before.errors),
        interrupted: now.interrupted.saturating_sub(before.interrupted),
        time_ns: now.time_ns.saturating_sub(before.time_ns),
    }
}
