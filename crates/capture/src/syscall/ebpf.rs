//! Seeing system calls by programs on the kernel's own tracepoints.

use super::{
    CallKey, Counts, Fact, FactKind, Fetched, Loss, LossKind, RawCall, SyscallSource, Tally,
    ThreadInfo, comm, names, rare,
};
use sandtrace_event::{SyscallAbi, SyscallBackend};
use sandtrace_sys::bpf::{
    BpfConfig, BpfError, BpfEvent, BpfEventKind, BpfLosses, BpfShape, BpfSyscalls, BpfTally,
    BpfThread,
};
use std::collections::HashMap;

/// Facts handed out at once.
const FACTS_AT_ONCE: usize = 4096;

/// A process, counted in the kernel with everything that it starts.
pub struct EbpfSource {
    programs: Option<BpfSyscalls>,
    /// Totals at the last look.
    before: HashMap<CallKey, Tally>,
    lost: BpfLosses,
    /// What was seen before the programs were detached.
    last: (Vec<Fact>, Counts),
    ended: bool,
}

impl EbpfSource {
    /// Loads the programs and counts a process from here on.
    ///
    /// # Errors
    /// When the kernel refuses, or lacks what the programs need.
    pub fn attach(pid: u32, config: BpfConfig) -> Result<Self, BpfError> {
        let mut programs = BpfSyscalls::load(config, &shapes())?;
        programs.watch(pid)?;
        Ok(Self {
            programs: Some(programs),
            before: HashMap::new(),
            lost: BpfLosses::default(),
            last: (Vec::new(), Counts::default()),
            ended: false,
        })
    }

    /// Counts another process too.
    ///
    /// # Errors
    /// When the table of processes is full.
    pub fn watch(&mut self, pid: u32) -> Result<(), BpfError> {
        match &mut self.programs {
            Some(programs) => programs.watch(pid),
            None => Ok(()),
        }
    }

    fn take_counts(&mut self) -> Counts {
        let Some(programs) = &mut self.programs else {
            return Counts::default();
        };
        match look(programs, &mut self.before) {
            Ok(calls) => {
                let lost = programs.losses().unwrap_or(self.lost);
                let losses = losses(self.lost, lost);
                self.lost = lost;
                Counts { calls, losses }
            }
            Err(error) => Counts {
                calls: Vec::new(),
                losses: vec![Loss {
                    kind: LossKind::Tracing,
                    count: 1,
                    detail: error.to_string(),
                }],
            },
        }
    }

    fn take_facts(&mut self) -> Vec<Fact> {
        let Some(programs) = &mut self.programs else {
            return Vec::new();
        };
        let events = std::iter::from_fn(|| programs.next_event());
        events.take(FACTS_AT_ONCE).map(fact).collect()
    }
}

impl SyscallSource for EbpfSource {
    fn backend(&self) -> SyscallBackend {
        SyscallBackend::Ebpf
    }

    fn facts(&mut self) -> Vec<Fact> {
        let mut facts = std::mem::take(&mut self.last.0);
        facts.extend(self.take_facts());
        facts
    }

    fn counts(&mut self) -> Counts {
        let mut counts = std::mem::take(&mut self.last.1);
        let more = self.take_counts();
        counts.calls.extend(more.calls);
        counts.losses.extend(more.losses);
        counts
    }

    fn has_ended(&self) -> bool {
        self.programs
            .as_ref()
            .map_or(self.ended, |programs| !programs.watches_any())
    }

    fn detach(&mut self) {
        self.ended = self.has_ended();
        let facts = self.facts();
        let counts = self.counts();
        self.last = (facts, counts);
        self.programs = None;
    }
}

/// Differences to the last look; what has ended is forgotten.
fn look(
    programs: &mut BpfSyscalls,
    before: &mut HashMap<CallKey, Tally>,
) -> Result<Vec<(CallKey, ThreadInfo, Tally)>, BpfError> {
    // Threads first: one that has ended by now has its last counts in the
    // table already.
    let threads = programs.threads()?;
    let threads: HashMap<u32, BpfThread> = threads
        .into_iter()
        .map(|thread| (thread.tid, thread))
        .collect();
    let mut names: HashMap<u32, ThreadInfo> = HashMap::new();
    let mut calls = Vec::new();
    for tally in programs.tallies()? {
        let thread = threads.get(&tally.tid);
        let key = key(&tally);
        let now = Tally {
            count: tally.count,
            errors: tally.errors,
            interrupted: tally.interrupted,
            time_ns: tally.time_ns,
        };
        let since = difference(now, before.get(&key).copied().unwrap_or_default());
        if since.count > 0 {
            let info = names
                .entry(tally.tid)
                .or_insert_with(|| info(tally.tid, thread));
            calls.push((key, info.clone(), since));
        }
        if thread.is_none_or(|thread| thread.ended) {
            programs.forget_tally(&tally);
            before.remove(&key);
        } else {
            before.insert(key, now);
        }
    }
    for thread in threads.values().filter(|thread| thread.ended) {
        programs.forget_thread(thread.tid);
    }
    Ok(calls)
}

/// A thread gets its name after its start; one that ended keeps its last.
fn info(tid: u32, thread: Option<&BpfThread>) -> ThreadInfo {
    let Some(thread) = thread else {
        return ThreadInfo {
            pid: tid,
            name: Vec::new(),
        };
    };
    let now = if thread.ended { Vec::new() } else { comm(tid) };
    ThreadInfo {
        pid: thread.pid,
        name: if now.is_empty() {
            thread.name.clone()
        } else {
            now
        },
    }
}

fn difference(now: Tally, before: Tally) -> Tally {
    Tally {
        count: now.count.saturating_sub(before.count),
        errors: now.errors.saturating_sub(before.errors),
        interrupted: now.interrupted.saturating_sub(before.interrupted),
        time_ns: now.time_ns.saturating_sub(before.time_ns),
    }
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
            "the table of threads was full",
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

fn key(tally: &BpfTally) -> CallKey {
    CallKey {
        tid: tally.tid,
        abi: abi(tally.abi),
        number: tally.number,
    }
}

fn abi(abi: u32) -> SyscallAbi {
    match abi {
        1 => SyscallAbi::I386,
        2 => SyscallAbi::X32,
        _ => SyscallAbi::Native,
    }
}

fn fact(event: BpfEvent) -> Fact {
    let what = match event.kind {
        BpfEventKind::Sigsys(number) => FactKind::Sigsys(Some(number)),
        BpfEventKind::Call {
            number,
            abi: table,
            arguments,
            path,
            address,
            argv,
        } => call(abi(table), number, arguments, (path, address, argv)),
    };
    Fact {
        at_us: event.at_ns / 1000,
        tid: event.tid,
        thread: ThreadInfo {
            pid: event.pid,
            name: event.name,
        },
        what,
    }
}

type Texts = (
    Option<(Vec<u8>, bool)>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, bool)>,
);

fn call(
    abi: SyscallAbi,
    number: u32,
    arguments: [u64; 6],
    (path, address, argv): Texts,
) -> FactKind {
    if names::number(abi, "exit_group") == Some(number) {
        let status = i32::try_from(arguments[0] & 0xff).unwrap_or_default();
        return FactKind::Ends(status);
    }
    let shape = rare::shape(abi, number);
    let fetched = |(bytes, cut)| Fetched { bytes, cut };
    let address = address.map(|bytes| Fetched { bytes, cut: false });
    FactKind::Call(RawCall {
        abi,
        number,
        arguments,
        path: shape.path.map(|_| path.map(fetched)),
        address: shape.address.map(|_| address),
        argv: argv.into_iter().map(fetched).collect(),
    })
}

fn shapes() -> Vec<BpfShape> {
    let tables = [(SyscallAbi::Native, false), (SyscallAbi::I386, true)];
    let shapes = tables.into_iter().flat_map(|(abi, compat)| {
        rare::table(abi)
            .into_iter()
            .filter_map(move |(number, shape)| {
                Some(BpfShape {
                    number: u16::try_from(number).ok()?,
                    compat,
                    path: shape.path,
                    address: shape.address,
                    argv: shape.argv,
                })
            })
    });
    shapes.collect()
}
