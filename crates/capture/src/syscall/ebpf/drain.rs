//! From totals in the kernel's tables to what was added since the last look.

use super::convert::abi;
use crate::syscall::{CallKey, Tally, ThreadInfo};
use sandtrace_sys::bpf::{BpfError, BpfSyscalls, BpfTally, BpfThread};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Longer than any program in the kernel runs, also where the host of this
/// machine takes its processor away meanwhile.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Drain {
    /// Totals by the thread's serial and the call.
    before: HashMap<(u32, u32, u32), Tally>,
    exits: HashMap<u32, u64>,
    /// Threads that nothing was known of, and whose they are.
    unknown: HashMap<u32, u32>,
    /// Threads that were let go while they live, and when.
    released: Vec<(Instant, BpfThread)>,
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
        let now = Instant::now();
        let threads = threads.into_iter().map(|thread| (now, thread));
        self.released.extend(threads);
    }

    /// Whether threads of an owner were missing at the last look: the next one knows
    /// them, or gives up what was counted for them.
    pub(super) fn misses_any(&self, owner: u32) -> bool {
        self.unknown.values().any(|own| *own == owner)
    }

    /// Hands out the differences, and frees what ended threads took. Answers how many
    /// calls, by owner, were counted of threads that nothing is known of: those that
    /// ended when the table of such was full.
    pub(super) fn look(
        &mut self,
        programs: &mut BpfSyscalls,
        mut each: impl FnMut(Added<'_>),
    ) -> Result<HashMap<u32, u64>, BpfError> {
        // In this order: what ended before the counts are read has its last
        // counts among them, and a thread that made a call is found among
        // those that live or among those that ended after that.
        let ended = programs.ended()?;
        let tallies = programs.tallies()?;
        let live = programs.threads()?;
        let later = programs.ended()?;
        let ended_serials: Vec<u32> = ended.iter().map(|thread| thread.serial).collect();
        let (over, released) = self.released();
        let gone: HashMap<_, _> = by_serial(ended.into_iter().chain(over)).collect();
        let known: HashMap<_, _> =
            by_serial(live.into_iter().chain(later).chain(released)).collect();

        let mut done = Vec::new();
        let mut unknown = HashMap::new();
        let mut lost: HashMap<u32, u64> = HashMap::new();
        for tally in &tallies {
            let over = gone.get(&tally.serial);
            match over.or_else(|| known.get(&tally.serial)) {
                Some(thread) => self.calls(tally, thread, &mut each),
                // A thread that executes a program changes its place in the
                // table; one that is missing twice is none.
                None if self.unknown.contains_key(&tally.serial) => {
                    let lost = lost.entry(tally.owner).or_default();
                    *lost = lost.saturating_add(self.added(tally).count);
                    done.push(tally);
                }
                None => _ = unknown.insert(tally.serial, tally.owner),
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
        Ok(lost)
    }

    /// Threads that were let go: of those that may forget their tallies, and of
    /// those for which a program may still be on its way to its last one.
    fn released(&mut self) -> (Vec<BpfThread>, Vec<BpfThread>) {
        let all = std::mem::take(&mut self.released).into_iter();
        let (over, fresh): (Vec<_>, Vec<_>) =
            all.partition(|(since, _)| since.elapsed() >= ON_ITS_WAY);
        self.released.clone_from(&fresh);
        let threads = |all: Vec<(Instant, BpfThread)>| all.into_iter().map(|(_, thread)| thread);
        (threads(over).collect(), threads(fresh).collect())
    }

    /// What was added to a tally since the last look.
    fn added(&mut self, tally: &BpfTally) -> Tally {
        let now = Tally {
            count: tally.count,
            errors: tally.errors,
            interrupted: tally.interrupted,
            time_ns: tally.time_ns,
        };
        let before = self.before.insert(place(tally), now);
        difference(now, before.unwrap_or_default())
    }

    fn calls(&mut self, tally: &BpfTally, thread: &BpfThread, each: &mut impl FnMut(Added<'_>)) {
        let since = self.added(tally);
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
