//! Counting system calls inside the kernel (bpf(2)).
//!
//! The programs are written in C, `bpf/syscalls.bpf.c`; what clang 14 makes of
//! it is committed beside it, so that building Sandtrace needs no clang
//! (`cargo xtask bpf` checks that both belong together). They attach to raw
//! tracepoints, which every process on the host passes: see docs/syscalls.md
//! for what that costs.

mod batch;
mod events;
mod tables;

pub use events::{BpfEvent, BpfEventKind};
pub use tables::{BpfTally, BpfThread};

use aya::maps::{Array, HashMap, IterableMap as _, MapData, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};
use std::io;

/// The compiled programs.
const OBJECT: &[u8] = aya::include_bytes_aligned!("bpf/syscalls.bpf.o");

/// Programs and the tracepoints that they belong to. Those that follow
/// processes come first, so that no process is counted that is not followed.
const PROGRAMS: [(&str, &str); 6] = [
    ("on_fork", "sched_process_fork"),
    ("on_exec", "sched_process_exec"),
    ("on_end", "sched_process_exit"),
    ("on_signal", "signal_deliver"),
    ("on_exit", "sys_exit"),
    ("on_enter", "sys_enter"),
];

/// Kernel without which nothing can be counted.
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
    /// Processes that are followed at the same time.
    pub processes: u32,
    /// Threads, those included that ended since the last look.
    pub threads: u32,
    /// Kinds of calls, each per thread.
    pub tallies: u32,
}

impl Default for BpfConfig {
    fn default() -> Self {
        Self {
            processes: 4096,
            threads: 16_384,
            tallies: 32_768,
        }
    }
}

/// Which arguments of a rare call are pointers worth following.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfShape {
    /// Number of the call, below 512.
    pub number: u16,
    /// Whether `number` is of the 32-bit table.
    pub compat: bool,
    /// Argument that points to a path.
    pub path: Option<u8>,
    /// Argument that points to a socket address.
    pub address: Option<u8>,
    /// Argument that points to a list of strings.
    pub argv: Option<u8>,
}

/// What the programs could not note down, since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BpfLosses {
    /// Calls without an entry in the table of counts.
    pub calls: u64,
    /// Threads without an entry.
    pub threads: u64,
    /// Processes that could not be followed.
    pub processes: u64,
    /// Events that found the ring full.
    pub events: u64,
}

/// The programs, attached. Dropping it detaches them and frees the tables.
pub struct BpfSyscalls {
    // Holds the programs' links.
    _programs: Ebpf,
    processes: HashMap<MapData, u32, u32>,
    threads: HashMap<MapData, u32, [u8; tables::THREAD_BYTES]>,
    tallies: MapData,
    losses: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    cpus: usize,
}

impl BpfSyscalls {
    /// Loads and attaches the programs; they count nothing yet.
    ///
    /// # Errors
    /// When the kernel refuses, or lacks what they need: raw tracepoints, ring
    /// buffers (5.8) and its own type information (`CONFIG_DEBUG_INFO_BTF`).
    pub fn load(config: BpfConfig, shapes: &[BpfShape]) -> Result<Self, BpfError> {
        let mut programs = EbpfLoader::new()
            .map_max_entries("processes", config.processes)
            .map_max_entries("threads", config.threads)
            .map_max_entries("tallies", config.tallies)
            .load(OBJECT)
            .map_err(|error| load_failed(&error))?;
        set_shapes(&mut programs, shapes)?;
        for (name, tracepoint) in PROGRAMS {
            attach(&mut programs, name, tracepoint)?;
        }
        let tallies = match take(&mut programs, "tallies")? {
            aya::maps::Map::PerCpuHashMap(data) => data,
            _ => return Err(wrong("tallies", &"not a per-CPU hash")),
        };
        Ok(Self {
            processes: map(&mut programs, "processes")?,
            threads: map(&mut programs, "threads")?,
            tallies,
            losses: map(&mut programs, "losses")?,
            events: map(&mut programs, "events")?,
            cpus: aya::util::nr_cpus().map_err(|(what, source)| {
                table("count CPUs", io::Error::new(source.kind(), what))
            })?,
            _programs: programs,
        })
    }

    /// Counts a process from now on, and all that it starts.
    ///
    /// # Errors
    /// When the table of processes is full.
    pub fn watch(&mut self, pid: u32) -> Result<(), BpfError> {
        let inserted = self.processes.insert(pid, 0, 0);
        inserted.map_err(|error| table("note down the process", error))
    }

    /// Whether any process is still counted.
    #[must_use]
    pub fn watches_any(&self) -> bool {
        self.processes.keys().next().is_some()
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<BpfEvent> {
        let item = self.events.next()?;
        BpfEvent::parse(&item)
    }

    /// All threads of processes that are or were counted.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn threads(&self) -> Result<Vec<BpfThread>, BpfError> {
        let mut threads = Vec::new();
        let fd = self.threads.map().fd();
        batch::read(fd, 4, tables::THREAD_BYTES, |key, value| {
            threads.extend(BpfThread::parse(key, value));
        })
        .map_err(|source| table("read the table of threads", source))?;
        Ok(threads)
    }

    /// Everything counted so far, of threads that were not forgotten.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn tallies(&self) -> Result<Vec<BpfTally>, BpfError> {
        let mut tallies = Vec::new();
        let bytes = tables::TALLY_BYTES * self.cpus;
        batch::read(self.tallies.fd(), tables::KEY_BYTES, bytes, |key, value| {
            tallies.extend(BpfTally::parse(key, value));
        })
        .map_err(|source| table("read the table of counts", source))?;
        Ok(tallies)
    }

    /// Frees the entry of a thread that has ended.
    pub fn forget_thread(&mut self, tid: u32) {
        // It may have been used again for another thread of that id meanwhile.
        let _gone = self.threads.remove(&tid);
    }

    /// Frees an entry of the table of counts.
    pub fn forget_tally(&mut self, tally: &BpfTally) {
        batch::delete(self.tallies.fd(), &tally.key());
    }

    /// What could not be noted down since the programs were loaded.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn losses(&self) -> Result<BpfLosses, BpfError> {
        let sum = |index: u32| {
            let counts = self.losses.get(&index, 0);
            let counts = counts.map_err(|error| table("read the table of losses", error))?;
            Ok(counts
                .iter()
                .fold(0_u64, |sum, own| sum.saturating_add(*own)))
        };
        Ok(BpfLosses {
            calls: sum(0)?,
            threads: sum(1)?,
            processes: sum(2)?,
            events: sum(3)?,
        })
    }
}

fn set_shapes(programs: &mut Ebpf, shapes: &[BpfShape]) -> Result<(), BpfError> {
    let mut table_: Array<_, [u8; 4]> = programs
        .map_mut("shapes")
        .ok_or_else(|| wrong("shapes", &"missing"))?
        .try_into()
        .map_err(|error| wrong("shapes", &error))?;
    for shape in shapes {
        let at = |argument: Option<u8>| argument.unwrap_or(u8::MAX);
        let value = [1, at(shape.path), at(shape.address), at(shape.argv)];
        let index = u32::from(shape.number & 511) + if shape.compat { 512 } else { 0 };
        table_
            .set(index, value, 0)
            .map_err(|error| table("note down rare calls", error))?;
    }
    Ok(())
}

fn attach(
    programs: &mut Ebpf,
    name: &'static str,
    tracepoint: &'static str,
) -> Result<(), BpfError> {
    let program: &mut RawTracePoint = programs
        .program_mut(name)
        .ok_or_else(|| wrong(name, &"missing"))?
        .try_into()
        .map_err(|error| wrong(name, &error))?;
    program.load().map_err(|error| match &error {
        aya::programs::ProgramError::LoadError { io_error, .. }
            if io_error.kind() == io::ErrorKind::PermissionDenied
                && io_error.raw_os_error() == Some(libc::EPERM) =>
        {
            BpfError::NotPermitted
        }
        _ => BpfError::Load {
            detail: in_full(&error),
        },
    })?;
    program
        .attach(tracepoint)
        .map(|_| ())
        .map_err(|error| BpfError::Attach {
            tracepoint,
            detail: in_full(&error),
        })
}

fn take(programs: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, BpfError> {
    programs
        .take_map(name)
        .ok_or_else(|| wrong(name, &"missing"))
}

fn map<T>(programs: &mut Ebpf, name: &'static str) -> Result<T, BpfError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    T::try_from(take(programs, name)?).map_err(|error| wrong(name, &error))
}

fn wrong(map: &'static str, detail: &dyn std::fmt::Display) -> BpfError {
    BpfError::Map {
        map,
        detail: detail.to_string(),
    }
}

fn table(
    doing: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> BpfError {
    BpfError::Table {
        doing,
        source: io::Error::other(error),
    }
}

fn load_failed(error: &aya::EbpfError) -> BpfError {
    let detail = in_full(error);
    if detail.contains("os error 1)") {
        BpfError::NotPermitted
    } else {
        BpfError::Load { detail }
    }
}

/// An error with its causes, on one line that is not too long: the verifier's
/// log may be in it.
fn in_full(error: &dyn std::error::Error) -> String {
    const MAX: usize = 600;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX).collect()
}
