//! Seeing system calls by programs on the kernel's own tracepoints.
//!
//! The programs are loaded once, however many sandboxes are watched: what they
//! cost every process of the host is paid once.

mod convert;
mod drain;

use super::waiting::Waiting;
use super::{Counts, Fact, Loss, LossKind, SyscallSource};
use drain::{AddedKind, Drain};
use sandtrace_event::SyscallBackend;
use sandtrace_sys::bpf::{BpfConfig, BpfError, BpfLosses, BpfQuota, BpfSyscalls};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events that are read of the ring at once.
const EVENTS_AT_ONCE: usize = 4096;

/// Times that so many are read when a sandbox is let go: more than any ring holds.
const LAST_READS: usize = 64;

/// Time between two questions whether the tables fill up.
const ROOM_EVERY: Duration = Duration::from_millis(50);
/// Least time between two looks for sandboxes that were let go.
const LOOKS_APART: Duration = Duration::from_millis(25);

/// The programs, shared by any number of sandboxes.
#[derive(Clone)]
pub struct EbpfHub {
    shared: Arc<Mutex<Shared>>,
    quota: BpfQuota,
}

impl EbpfHub {
    /// Loads the programs. Each sandbox may use as much as `quota` says.
    ///
    /// # Errors
    /// When the kernel refuses, or lacks what the programs need.
    pub fn load(config: BpfConfig, quota: BpfQuota) -> Result<Self, BpfError> {
        let programs = BpfSyscalls::load(config, &convert::shapes())?;
        let shared = Shared {
            programs,
            owners: HashMap::new(),
            last_owner: 0,
            drain: Drain::default(),
            round: 0,
            last_look: Instant::now(),
            looked: Instant::now(),
            begun: 0,
            most_begun: u64::from(config.threads / 8),
        };
        let shared = Arc::new(Mutex::new(shared));
        Ok(Self { shared, quota })
    }

    /// Whether exits from guests are counted: whether the kernel has KVM's tracepoint.
    #[must_use]
    pub fn sees_kvm(&self) -> bool {
        lock(&self.shared).programs.sees_kvm()
    }

    /// Counts a process from here on, and what it starts.
    ///
    /// # Errors
    /// When a table is full, or the process is counted already.
    pub fn watch(&self, pid: u32) -> Result<EbpfSource, BpfError> {
        let owner = lock(&self.shared).add(pid, self.quota)?;
        Ok(EbpfSource {
            shared: Arc::clone(&self.shared),
            owner,
        })
    }
}

/// A process, counted in the kernel with everything that it starts.
pub struct EbpfSource {
    shared: Arc<Mutex<Shared>>,
    owner: u32,
}

impl EbpfSource {
    /// Loads the programs for one process alone and counts it from here on.
    ///
    /// # Errors
    /// As [`EbpfHub::load`] and [`EbpfHub::watch`].
    pub fn attach(pid: u32, config: BpfConfig) -> Result<Self, BpfError> {
        EbpfHub::load(config, BpfQuota::EVERYTHING)?.watch(pid)
    }

    /// Counts another process as part of the same sandbox.
    ///
    /// # Errors
    /// When the table of processes is full.
    pub fn watch(&mut self, pid: u32) -> Result<(), BpfError> {
        lock(&self.shared).programs.watch(pid, self.owner)
    }
}

impl SyscallSource for EbpfSource {
    fn backend(&self) -> SyscallBackend {
        SyscallBackend::Ebpf
    }

    fn facts(&mut self) -> Vec<Fact> {
        let mut shared = lock(&self.shared);
        shared.read_events();
        shared.make_room();
        let owner = shared.owners.get_mut(&self.owner);
        owner.map_or_else(Vec::new, |owner| owner.facts.take())
    }

    fn counts(&mut self) -> Counts {
        // One look serves all that were let go before it.
        let rest = lock(&self.shared).rest_before_last_look(self.owner);
        std::thread::sleep(rest);
        lock(&self.shared).counts(self.owner)
    }

    fn has_ended(&self) -> bool {
        !lock(&self.shared).programs.watches_any(self.owner)
    }

    fn detach(&mut self) {
        lock(&self.shared).let_go(self.owner);
    }
}

impl Drop for EbpfSource {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.let_go(self.owner);
        shared.owners.remove(&self.owner);
        shared.programs.forget_owner(self.owner);
    }
}

struct Shared {
    programs: BpfSyscalls,
    owners: HashMap<u32, Owner>,
    last_owner: u32,
    drain: Drain,
    /// How often the tables were looked at, and when they were last.
    round: u64,
    last_look: Instant,
    /// When it was last asked how many threads there were, and how many there
    /// were at the last look.
    looked: Instant,
    begun: u64,
    /// Threads that may begin before the tables are looked at again.
    most_begun: u64,
}

/// What waits to be taken of one sandbox.
#[derive(Default)]
struct Owner {
    facts: Waiting,
    /// Of each thread and call at most one entry a look: see [`Shared::look`].
    counts: Counts,
    /// The last look whose counts were taken.
    taken: u64,
    lost: BpfLosses,
    /// Calls of threads that nothing is known of.
    unowned: u64,
    let_go: bool,
}

impl Shared {
    fn add(&mut self, pid: u32, quota: BpfQuota) -> Result<u32, BpfError> {
        self.last_owner = self.last_owner.wrapping_add(1);
        let number = self.last_owner;
        self.programs.add_owner(number, quota)?;
        let owner = Owner {
            taken: self.round,
            ..Owner::default()
        };
        self.owners.insert(number, owner);
        if let Err(error) = self.programs.watch(pid, number) {
            self.owners.remove(&number);
            self.programs.forget_owner(number);
            return Err(error);
        }
        Ok(number)
    }

    /// Hands events of the ring to their owners; whether there may be more.
    fn read_events(&mut self) -> bool {
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = self.programs.next_event() else {
                return false;
            };
            if let Some(owner) = self.owners.get_mut(&event.owner) {
                owner.facts.push(convert::fact(event));
            }
        }
        true
    }

    /// Where threads come and go, the tables are full before the interval ends.
    fn make_room(&mut self) {
        if self.looked.elapsed() < ROOM_EVERY {
            return;
        }
        self.looked = Instant::now();
        if self.programs.threads_begun().saturating_sub(self.begun) > self.most_begun {
            self.look();
        }
    }

    /// The tables are looked at for all at once: who asks first pays.
    fn counts(&mut self, number: u32) -> Counts {
        // Who asks for counts alone does not let the ring fill up.
        self.read_events();
        let stale = |owner: &Owner| owner.taken >= self.round;
        if self.owners.get(&number).is_none_or(stale) {
            self.look();
        }
        // Nobody asks again: what is missing is lost at the second look, not later.
        let last = self.owners.get(&number).is_some_and(|owner| owner.let_go);
        if last && self.drain.misses_any(number) {
            self.look();
        }
        let lost = self.programs.losses(number);
        let Some(owner) = self.owners.get_mut(&number) else {
            return Counts::default();
        };
        owner.taken = self.round;
        let mut counts = std::mem::take(&mut owner.counts);
        counts.losses.extend(losses(owner.lost, lost));
        owner.lost = lost;
        let unowned = std::mem::take(&mut owner.unowned);
        if unowned > 0 {
            counts.losses.push(Loss {
                kind: LossKind::Counts,
                count: unowned,
                detail: "the table of threads that ended was full".to_owned(),
            });
        }
        let overrun = owner.facts.take_dropped();
        if overrun > 0 {
            counts.losses.push(Loss {
                kind: LossKind::Facts,
                count: overrun,
                detail: "security-relevant calls waited too long to be taken".to_owned(),
            });
        }
        counts
    }

    /// How long one that was let go waits for its last counts, so that where
    /// many end one soon after another not each has all tables looked at.
    fn rest_before_last_look(&self, number: u32) -> Duration {
        let waits = |owner: &Owner| owner.let_go && owner.taken >= self.round;
        if self.owners.get(&number).is_some_and(waits) {
            LOOKS_APART.saturating_sub(self.last_look.elapsed())
        } else {
            Duration::ZERO
        }
    }

    fn look(&mut self) {
        self.round = self.round.saturating_add(1);
        self.last_look = Instant::now();
        self.begun = self.programs.threads_begun();
        let owners = &mut self.owners;
        let looked = self.drain.look(&mut self.programs, |added| {
            // Else a thread that was let go a moment too late.
            let Some(owner) = owners.get_mut(&added.owner) else {
                return;
            };
            let info = added.info();
            match added.what {
                AddedKind::Calls(key, tally) => owner.counts.calls.push((key, info, tally)),
                AddedKind::KvmExits(count) => {
                    owner.counts.kvm_exits.push((added.thread.tid, info, count));
                }
            }
        });
        match looked {
            Ok(lost) => {
                for (number, count) in lost {
                    if let Some(owner) = self.owners.get_mut(&number) {
                        owner.unowned = owner.unowned.saturating_add(count);
                    }
                }
            }
            Err(error) => {
                for owner in self.owners.values_mut() {
                    owner.counts.losses.push(Loss {
                        kind: LossKind::Tracing,
                        count: 1,
                        detail: error.to_string(),
                    });
                }
            }
        }
    }

    fn let_go(&mut self, number: u32) {
        let Some(owner) = self.owners.get_mut(&number) else {
            return;
        };
        if std::mem::replace(&mut owner.let_go, true) {
            return;
        }
        match self.programs.let_go(number) {
            Ok(threads) => self.drain.release(threads),
            Err(error) => owner.counts.losses.push(Loss {
                kind: LossKind::Tracing,
                count: 1,
                detail: error.to_string(),
            }),
        }
        // The last counts are those of a look from now on.
        owner.taken = self.round;
        let mut reads = 0..LAST_READS;
        while reads.next().is_some() && self.read_events() {}
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn losses(before: BpfLosses, now: BpfLosses) -> Vec<Loss> {
    let loss = |kind, now: u64, before: u64, detail: &str| Loss {
        kind,
        count: now.saturating_sub(before),
        detail: detail.to_owned(),
    };
    let all = [
        loss(
            LossKind::Counts,
            now.calls,
            before.calls,
            "the table of counts was full",
        ),
        loss(
            LossKind::Threads,
            now.threads,
            before.threads,
            "the table of threads, or of those that ended, was full",
        ),
        loss(
            LossKind::Threads,
            now.processes,
            before.processes,
            "the table of processes was full: a process that the VMM started is not followed",
        ),
        loss(
            LossKind::Facts,
            now.events,
            before.events,
            "security-relevant calls came faster than they were taken",
        ),
    ];
    all.into_iter().filter(|loss| loss.count > 0).collect()
}
