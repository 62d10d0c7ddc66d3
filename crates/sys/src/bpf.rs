//! Counting system calls inside the kernel (bpf(2)).
//!
//! The programs are written in C, `bpf/syscalls.bpf.c`; what clang 14 makes of
//! it is committed beside it, so that building Sandtrace needs no clang
//! (`cargo xtask bpf` checks that both belong together). They attach to raw
//! tracepoints, which every process on the host passes: see docs/syscalls.md
//! for what that costs.

mod batch;
mod events;
mod filter;
mod frames;
mod load;
mod looks;
mod mapped;
mod nothing;
mod quick;
mod slots;
mod tables;

pub use events::{BpfEvent, BpfEventKind};
pub use frames::{
    BpfFlow, BpfFlowId, BpfFlowKey, BpfFrame, BpfFrameLosses, BpfFrames, BpfFramesConfig,
    BpfFramesError, BpfFramesReader, BpfSums, BpfTap,
};
pub use nothing::BpfNothing;
pub use tables::{BpfLosses, BpfTally, BpfThread};

use crate::syscall::CallTable;
use crate::{pidns, tasks};
use aya::maps::{Array, HashMap, IterableMap as _, MapData, RingBuf};
use aya::{Ebpf, EbpfLoader};
use filter::Filter;
use load::{attach, load_failed, map, set_shapes, table};
use quick::Quicks;
use slots::Slots;
use std::io;

/// The compiled programs.
const OBJECT: &[u8] = aya::include_bytes_aligned!("bpf/syscalls.bpf.o");

/// Programs and the tracepoints that they belong to. Those that follow
/// processes come first, so that no process is counted that is not followed.
const PROGRAMS: [(&str, &str); 7] = [
    ("on_fork", "sched_process_fork"),
    ("on_exec", "sched_process_exec"),
    ("on_end", "sched_process_exit"),
    ("on_rename", "task_rename"),
    ("on_signal", "signal_deliver"),
    ("on_exit", "sys_exit"),
    ("on_enter", "sys_enter"),
];

/// Why nothing can be counted.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// bpf(2) is refused.
    #[error(
        "load system call programs: not permitted (needs CAP_BPF and CAP_PERFMON, or root; lockdown forbids it too)"
    )]
    NotPermitted,
    /// The kernel lacks something.
    #[error("load system call programs: {detail}")]
    Load {
        /// What the loader or the kernel's verifier said.
        detail: String,
    },
    /// A program loaded but cannot be attached.
    #[error("attach to tracepoint {tracepoint}: {detail}")]
    Attach {
        /// Which.
        tracepoint: &'static str,
        /// The cause.
        detail: String,
    },
    /// A map of the object is not what it should be: a bug of ours.
    #[error("map {map}: {detail}")]
    Map {
        /// Which.
        map: &'static str,
        /// The cause.
        detail: String,
    },
    /// Process ids here are not those that the programs see.
    #[error(
        "load system call programs: this is not the host's PID namespace, whose process ids the programs see (run it there, or with the host's: `--pid host`)"
    )]
    PidNamespace,
    /// The process has ended.
    #[error("watch process {pid}: it has ended")]
    Ended {
        /// The process.
        pid: u32,
    },
    /// A table in the kernel cannot be read or written.
    #[error("{doing}: {source}")]
    Table {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// How large the tables in the kernel are. They are allocated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfConfig {
    /// Owners at the same time.
    pub owners: u32,
    /// Processes that are followed at the same time.
    pub processes: u32,
    /// Threads that live.
    pub threads: u32,
    /// Threads that ended since the last look.
    pub ended: u32,
    /// Kinds of calls, each per thread.
    pub tallies: u32,
    /// Bytes of the ring of events, a power of two.
    pub ring: u32,
    /// The tracepoint that counts as an exit from a guest. It is there where KVM is.
    pub kvm_tracepoint: &'static str,
}

impl Default for BpfConfig {
    fn default() -> Self {
        Self {
            owners: 64,
            processes: 4096,
            threads: 16_384,
            ended: 16_384,
            tallies: 32_768,
            ring: 1 << 20,
            kvm_tracepoint: "kvm_exit",
        }
    }
}

/// What one owner may take of what all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfQuota {
    /// Events in a tenth of a second.
    pub events: u32,
    /// Processes at the same time.
    pub processes: u32,
}

impl BpfQuota {
    /// For an owner that has all for itself: what there is.
    pub const EVERYTHING: Self = Self {
        events: u32::MAX,
        processes: u32::MAX,
    };
}

/// Which arguments of a rare call are pointers worth following.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfShape {
    /// Number of the call, below 512; of [`CallTable::X32`] below 576.
    pub number: u16,
    /// Table of `number`.
    pub table: CallTable,
    /// Argument that points to a path.
    pub path: Option<u8>,
    /// Argument that points to a socket address.
    pub address: Option<u8>,
    /// Argument that points to a list of strings.
    pub argv: Option<u8>,
    /// Arguments that point to other texts, for a call without a list.
    pub texts: [Option<u8>; 2],
    /// Room is kept for it that calls without this cannot take.
    pub alarm: bool,
}

/// The programs, attached. Dropping it detaches them and frees the tables.
///
/// Each process that is counted has an owner, a number that whoever watches
/// it chose: what it starts has the same.
pub struct BpfSyscalls {
    // Holds the programs' links.
    programs: Ebpf,
    filter: Filter,
    processes: HashMap<MapData, u32, [u8; tables::PROCESS_BYTES]>,
    owners: HashMap<MapData, u32, [u8; tables::OWNER_BYTES]>,
    /// Threads that live: in places of their own, those that found theirs
    /// taken, and where each is, by its id.
    slots: Slots,
    crowd: HashMap<MapData, u64, [u8; tables::THREAD_BYTES]>,
    threads: HashMap<MapData, u32, u64>,
    ended: HashMap<MapData, u32, [u8; tables::THREAD_BYTES]>,
    /// As above.
    quicks: Quicks,
    tallies: HashMap<MapData, [u8; tables::KEY_BYTES], [u8; tables::TALLY_BYTES]>,
    serials: Array<MapData, u64>,
    events: RingBuf<MapData>,
    sees_kvm: bool,
}

impl BpfSyscalls {
    /// Loads and attaches the programs; they count nothing yet.
    ///
    /// # Errors
    /// When the kernel refuses, or lacks what they need: raw tracepoints, ring
    /// buffers, programs that are told where a thread's registers are (5.15) and
    /// its own type information (`CONFIG_DEBUG_INFO_BTF`); and within a PID
    /// namespace, where processes have other ids than those that programs see.
    pub fn load(config: BpfConfig, shapes: &[BpfShape]) -> Result<Self, BpfError> {
        if !pidns::is_initial() {
            return Err(BpfError::PidNamespace);
        }
        let mut programs = EbpfLoader::new()
            .map_max_entries("owners", config.owners)
            .map_max_entries("processes", config.processes)
            .map_max_entries("crowd", config.threads)
            .map_max_entries("threads", config.threads)
            .map_max_entries("ended", config.ended)
            .map_max_entries("tallies", config.tallies)
            .map_max_entries("events", config.ring)
            .load(OBJECT)
            .map_err(|error| load_failed(&error))?;
        set_shapes(&mut programs, shapes)?;
        for (name, tracepoint) in PROGRAMS {
            attach(&mut programs, name, tracepoint)?;
        }
        looks::load(&mut programs)?;
        // Without KVM, or with its module not loaded, there are no exits.
        let sees_kvm = attach(&mut programs, "on_kvm_exit", config.kvm_tracepoint).is_ok();
        Ok(Self {
            filter: Filter::of(load::take(&mut programs, "filter")?)
                .map_err(|source| table("map the filter of processes", source))?,
            processes: map(&mut programs, "processes")?,
            owners: map(&mut programs, "owners")?,
            slots: Slots::of(load::take(&mut programs, "slots")?)
                .map_err(|source| table("map the places of threads", source))?,
            crowd: map(&mut programs, "crowd")?,
            threads: map(&mut programs, "threads")?,
            ended: map(&mut programs, "ended")?,
            quicks: Quicks::of(load::take(&mut programs, "quicks")?)
                .map_err(|source| table("map the places of counts", source))?,
            tallies: map(&mut programs, "tallies")?,
            serials: map(&mut programs, "serials")?,
            events: map(&mut programs, "events")?,
            programs,
            sees_kvm,
        })
    }

    /// Whether exits from guests are counted.
    #[must_use]
    pub fn sees_kvm(&self) -> bool {
        self.sees_kvm
    }

    /// Makes room for an owner.
    ///
    /// # Errors
    /// When the table of owners is full.
    pub fn add_owner(&mut self, owner: u32, quota: BpfQuota) -> Result<(), BpfError> {
        let value = tables::owner(quota);
        let inserted = self.owners.insert(owner, value, 0);
        inserted.map_err(|error| table("note down what is watched", error))
    }

    /// Counts a process from now on, and all that it starts or has started: what
    /// is left of those that it started before is found by their parents.
    ///
    /// # Errors
    /// When the table of processes is full, or the process is counted already or
    /// has ended.
    pub fn watch(&mut self, pid: u32, owner: u32) -> Result<(), BpfError> {
        // In this order: whoever is found in the table passes the filter.
        self.filter.add(pid);
        let new = self.processes.insert(pid, tables::process(owner), NOEXIST);
        if let Err(error) = new {
            self.filter.remove(pid);
            return Err(table("note down the process", error));
        }
        let looked = self.adopt();
        if looked.is_ok() && tasks::lives(pid) {
            return Ok(());
        }
        // Its end may have been before it was noted down.
        if self.processes.remove(&pid).is_ok() {
            self.filter.remove(pid);
        }
        looked.and(Err(BpfError::Ended { pid }))
    }

    /// Notes down threads that live, and processes that watched ones had started.
    fn adopt(&mut self) -> Result<(), BpfError> {
        for _ in 0..ADOPT_PASSES {
            let before = self.serials.get(&1, 0).unwrap_or_default();
            looks::run(&mut self.programs)?;
            // Each may have started others, whose ids were looked at before.
            if self.serials.get(&1, 0).unwrap_or_default() == before {
                break;
            }
        }
        Ok(())
    }

    /// Counts nothing of an owner any more; answers which of its threads live.
    /// Their tallies stay until they are forgotten.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn let_go(&mut self, owner: u32) -> Result<Vec<BpfThread>, BpfError> {
        // A process that starts another meanwhile has it followed: again, then.
        for _ in 0..LET_GO_PASSES {
            if self.drop_processes(owner)? == 0 {
                break;
            }
        }
        let mut threads = self.threads()?;
        threads.retain(|thread| thread.owner == owner);
        for thread in &threads {
            let _gone = self.threads.remove(&thread.tid);
            if !self.slots.clear(thread.regs) && self.crowd.remove(&thread.regs).is_ok() {
                self.slots.thin_out(thread.regs);
            }
        }
        Ok(threads)
    }

    /// Forgets an owner that was let go.
    pub fn forget_owner(&mut self, owner: u32) {
        let _gone = self.owners.remove(&owner);
    }

    fn drop_processes(&mut self, owner: u32) -> Result<usize, BpfError> {
        let mut pids = Vec::new();
        let fd = self.processes.map().fd();
        batch::read(fd, 4, tables::PROCESS_BYTES, |key, value| {
            if tables::word(value, 0) == Some(owner) {
                pids.extend(tables::word(key, 0));
            }
        })
        .map_err(|source| table("read the table of processes", source))?;
        for pid in &pids {
            // Who removes it takes it out of the filter: we, or its end.
            if self.processes.remove(pid).is_ok() {
                self.filter.remove(*pid);
            }
        }
        Ok(pids.len())
    }

    /// Whether any process of an owner is still counted.
    #[must_use]
    pub fn watches_any(&self, owner: u32) -> bool {
        let values = self.processes.iter().flatten();
        let mut owners = values.filter_map(|(_, value)| tables::word(&value, 0));
        owners.any(|own| own == owner)
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<BpfEvent> {
        let item = self.events.next()?;
        BpfEvent::parse(&item)
    }

    /// How many threads were noted down since the programs were loaded.
    #[must_use]
    pub fn threads_begun(&self) -> u64 {
        self.serials.get(&0, 0).unwrap_or_default()
    }

    /// All threads that live.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn threads(&self) -> Result<Vec<BpfThread>, BpfError> {
        let mut threads: Vec<_> = self.slots.threads().collect();
        let crowd = threads_in(self.crowd.map(), 8, "read the table of threads")?;
        threads.extend(crowd);
        Ok(threads)
    }

    /// All threads that ended and were not forgotten.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn ended(&self) -> Result<Vec<BpfThread>, BpfError> {
        threads_in(self.ended.map(), 4, "read the table of ended threads")
    }

    /// Everything counted so far, of threads that were not forgotten.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn tallies(&self) -> Result<Vec<BpfTally>, BpfError> {
        let mut tallies: Vec<_> = self.quicks.tallies().collect();
        let fd = self.tallies.map().fd();
        batch::read(fd, tables::KEY_BYTES, tables::TALLY_BYTES, |key, value| {
            tallies.extend(BpfTally::parse(key, value));
        })
        .map_err(|source| table("read the table of counts", source))?;
        Ok(tallies)
    }

    /// Frees entries of threads that have ended, by their serials.
    pub fn forget_threads(&mut self, serials: impl Iterator<Item = u32>) {
        let keys: Vec<u8> = serials.flat_map(u32::to_ne_bytes).collect();
        batch::delete(self.ended.map().fd(), &keys, 4);
    }

    /// Frees entries of the table of counts.
    pub fn forget_tallies<'a>(&mut self, tallies: impl Iterator<Item = &'a BpfTally>) {
        let others = tallies.filter(|tally| !self.quicks.forget(tally));
        let keys: Vec<u8> = others.flat_map(BpfTally::key).collect();
        batch::delete(self.tallies.map().fd(), &keys, tables::KEY_BYTES);
    }

    /// What could not be noted down of an owner since it was added.
    #[must_use]
    pub fn losses(&self, owner: u32) -> BpfLosses {
        let value = self.owners.get(&owner, 0);
        value.map_or_else(|_| BpfLosses::default(), |value| BpfLosses::parse(&value))
    }
}

/// Looks for an owner's processes: what is left after these was started
/// while the last one was on its way, and ends up in nobody's counts.
const LET_GO_PASSES: usize = 16;

/// Looks at all threads of the host when a process is watched. A child has
/// mostly a higher id than its parent and is found in the same look.
const ADOPT_PASSES: usize = 16;

/// `BPF_NOEXIST` of linux/bpf.h.
const NOEXIST: u64 = 1;

fn threads_in(data: &MapData, key: usize, doing: &'static str) -> Result<Vec<BpfThread>, BpfError> {
    let mut threads = Vec::new();
    batch::read(data.fd(), key, tables::THREAD_BYTES, |_, value| {
        threads.extend(BpfThread::parse(value));
    })
    .map_err(|source| table(doing, source))?;
    Ok(threads)
}
