//! The tracing thread: from attaching to the last detach.

use super::PtraceError;
use super::fetch::{Memory, fetch};
use super::reader::Reader;
use super::state::Shared;
use crate::syscall::rare::{self, Shape};
use crate::syscall::{CallKey, Fact, FactKind, ThreadInfo, abi, comm, forbidden};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::ptrace::{AttachError, Stop, SyscallStop, Tracer};
use sandtrace_sys::syscall::CallTable;
use sandtrace_sys::tasks;
use sandtrace_sys::{clock, pidns};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long threads may take to stop before they are left to the kernel,
/// which detaches them when the tracing thread ends.
pub(super) const DETACH_WITHIN: Duration = Duration::from_secs(2);

/// Looks at a process' list of threads while attaching: threads that appear
/// meanwhile are followed from those that are attached already.
const ATTACH_PASSES: usize = 64;

/// `SIGSYS` on every architecture that matters here.
const SIGSYS: i32 = 31;

pub(super) struct Session {
    tracer: Tracer,
    shared: Arc<Shared>,
    threads: HashMap<u32, Traced>,
    /// Processes of which a violation was reported.
    violators: HashSet<u32>,
    reader: Reader,
    native: HashMap<u32, Shape>,
    compat: HashMap<u32, Shape>,
    short: HashMap<u32, Shape>,
}

#[derive(Clone, Copy, Default)]
struct Traced {
    /// The call that it is in, and since when.
    inside: Option<(SyscallAbi, u32, Instant)>,
    /// The call that it was in last.
    last: Option<(SyscallAbi, u32)>,
}

impl Session {
    /// Seizes every thread of a process, and of those that it started as many as make
    /// `most` processes; it then takes each until its next stop to be traced.
    pub(super) fn attach(pid: u32, most: usize, shared: &Arc<Shared>) -> Result<Self, PtraceError> {
        let mut session = Self {
            tracer: Tracer::here(),
            shared: Arc::clone(shared),
            threads: HashMap::new(),
            violators: HashSet::new(),
            reader: Reader::default(),
            native: rare::table(SyscallAbi::Native),
            compat: rare::table(SyscallAbi::I386),
            short: rare::table(SyscallAbi::X32),
        };
        if !pidns::proc_is_ours() {
            return Err(AttachError::ForeignNamespace { tid: pid }.into());
        }
        for _ in 0..ATTACH_PASSES {
            if session.seize_new(pid)? == 0 {
                break;
            }
        }
        if session.threads.is_empty() {
            return Err(AttachError::Ended { tid: pid }.into());
        }
        session.seize_descendants(pid, most)?;
        Ok(session)
    }

    /// Seizes what the process had started before, as far as parents live, and counts
    /// what there is no room for.
    fn seize_descendants(&mut self, pid: u32, most: usize) -> Result<(), PtraceError> {
        let mut seized = HashSet::from([pid]);
        let mut beyond = HashSet::new();
        for _ in 0..ATTACH_PASSES {
            let children = tasks::by_parent();
            let mut waiting: Vec<u32> = seized.iter().copied().collect();
            let mut new = 0;
            beyond.clear();
            while let Some(parent) = waiting.pop() {
                for child in children.get(&parent).into_iter().flatten() {
                    if seized.contains(child) {
                        continue;
                    }
                    if seized.len() < most {
                        seized.insert(*child);
                        new += self.seize_process(*child)?;
                        waiting.push(*child);
                    } else if beyond.insert(*child) {
                        waiting.push(*child);
                    }
                }
            }
            if new == 0 {
                break;
            }
        }
        // What a seized one started a moment ago is traced without being seized.
        beyond.retain(|pid| tasks::lives(*pid) && status(*pid, "TracerPid:") != own_tid());
        self.seen().left_out = u64::try_from(beyond.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Seizes all threads of a process that may end meanwhile; how many.
    fn seize_process(&mut self, pid: u32) -> Result<usize, PtraceError> {
        let mut all = 0;
        for _ in 0..ATTACH_PASSES {
            match self.seize_new(pid) {
                Ok(0) => break,
                Ok(new) => all += new,
                Err(_) if !tasks::lives(pid) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Seizes threads that are not yet; how many there were.
    fn seize_new(&mut self, pid: u32) -> Result<usize, PtraceError> {
        let mut seized = 0;
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
        let unlisted = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => AttachError::Ended { tid: pid }.into(),
            _ => PtraceError::Threads { pid, source },
        };
        for entry in threads.map_err(unlisted)? {
            let entry = entry.map_err(unlisted)?;
            let tid = entry.file_name().to_str().and_then(|tid| tid.parse().ok());
            let Some(tid) = tid.filter(|tid| !self.threads.contains_key(tid)) else {
                continue;
            };
            match self.tracer.seize(tid) {
                Ok(()) => {}
                Err(AttachError::Ended { .. }) => continue,
                // Started by a thread that was seized a moment ago.
                Err(AttachError::Traced { tracer, .. }) if Some(tracer) == own_tid() => {}
                Err(error) => return Err(error.into()),
            }
            seized += 1;
            self.begin(tid, pid);
            // Stops once, so that it can be resumed to its next call.
            let _ended = self.tracer.interrupt(tid);
        }
        Ok(seized)
    }

    fn begin(&mut self, tid: u32, pid: u32) {
        self.threads.entry(tid).or_default();
        let name = comm(tid);
        self.seen().begins(tid, ThreadInfo { pid, name });
    }

    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.tracer.wait() {
                Ok(Some((tid, stop))) => self.stopped(tid, stop),
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let mut seen = self.seen();
                    seen.untraced = 1;
                    seen.trouble = Some(format!("wait for traced threads: {error}"));
                    return;
                }
            }
        }
        self.detach_all();
    }

    /// Handles a stop and lets the thread go on. A thread that was killed
    /// meanwhile refuses to be resumed; its end is reported next.
    fn stopped(&mut self, tid: u32, stop: Stop) {
        let mut signal = 0;
        match stop {
            Stop::Gone => {
                self.gone(tid);
                return;
            }
            Stop::Group => {
                let _killed = self.tracer.listen(tid);
                return;
            }
            Stop::Syscall => self.syscall(tid),
            Stop::Signal(number) => {
                signal = number;
                if number == SIGSYS {
                    self.sigsys(tid);
                }
            }
            Stop::Started(child) => self.started(child),
            Stop::Executed(former) => self.executed(tid, former),
            Stop::Exiting(status) => self.exiting(tid, status),
            // New threads stop before their parent says that it started them.
            Stop::Interrupted | Stop::Other => self.started(tid),
        }
        let _killed = self.tracer.resume(tid, signal);
    }

    fn syscall(&mut self, tid: u32) {
        match self.tracer.syscall(tid) {
            Ok(SyscallStop::Entry {
                arch,
                number,
                arguments,
            }) => self.enters(tid, arch, number, arguments),
            Ok(SyscallStop::Exit { value, is_error }) => self.leaves(tid, value, is_error),
            Ok(SyscallStop::None) | Err(_) => {}
        }
    }

    fn enters(&mut self, tid: u32, arch: u32, number: u64, arguments: [u64; 6]) {
        // −1 is no call at all: a tracer's or filter's way to skip one.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let (table, number) = CallTable::of(arch, number);
        let abi = abi(table);
        let rare = match abi {
            SyscallAbi::Native => &self.native,
            SyscallAbi::I386 => &self.compat,
            SyscallAbi::X32 => &self.short,
        };
        let shape = rare.get(&number).copied();
        let inside = Some((abi, number, Instant::now()));
        let last = Some((abi, number));
        self.threads.insert(tid, Traced { inside, last });
        let Some(shape) = shape else { return };
        if is_exit_group(abi, number) {
            let status = i32::try_from(arguments[0] & 0xff).unwrap_or_default();
            self.fact(tid, FactKind::Ends(status));
        } else {
            let memory = Memory {
                reader: &self.reader,
                pid: self.process(tid),
                tid,
            };
            let call = fetch(memory, abi, number, arguments, shape);
            self.fact(tid, FactKind::Call(call));
        }
    }

    fn leaves(&mut self, tid: u32, value: i64, is_error: bool) {
        let traced = self.threads.get_mut(&tid);
        // A thread that was attached within a call, or that was just made.
        let Some((abi, number, since)) = traced.and_then(|traced| traced.inside.take()) else {
            return;
        };
        let time_ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let key = CallKey { tid, abi, number };
        self.seen().count(key, value, is_error, time_ns);
    }

    fn sigsys(&mut self, tid: u32) {
        let pid = self.process(tid);
        // One that somebody else sent says nothing of filters, and ends the
        // process in the same way.
        self.violators.insert(pid);
        if let Some(call) = self.tracer.forbidden_call(tid) {
            self.fact(tid, FactKind::Sigsys(Some(forbidden(call))));
        }
    }

    /// A thread or process that is new, unless it is known.
    fn started(&mut self, tid: u32) {
        if self.threads.contains_key(&tid) {
            return;
        }
        // Its parent says so after its own first stop: it may be gone already.
        if let Some(pid) = process_of(tid) {
            self.begin(tid, pid);
        }
    }

    /// A thread executed a program: every other thread of its process is
    /// gone, and it has the id of the first from here on.
    fn executed(&mut self, tid: u32, former: u32) {
        if tid != former {
            let traced = self.threads.remove(&former).unwrap_or_default();
            self.threads.insert(tid, traced);
            self.seen().ends(former);
        }
        let name = comm(tid);
        let pid = process_of(tid).unwrap_or(tid);
        self.seen().begins(tid, ThreadInfo { pid, name });
    }

    fn process(&self, tid: u32) -> u32 {
        let seen = self.seen();
        seen.threads.get(&tid).map_or(tid, |thread| thread.pid)
    }

    /// Names of threads change after their start; this is their last.
    fn exiting(&mut self, tid: u32, status: i32) {
        let name = comm(tid);
        if let Some(thread) = self.seen().threads.get_mut(&tid) {
            thread.name = name;
        }
        // A filter that kills stops nobody for the signal: the last call is it.
        let killed = status & 0x7f == SIGSYS && !self.violators.contains(&self.process(tid));
        if killed {
            self.violators.insert(self.process(tid));
            let call = self.threads.get(&tid).and_then(|traced| traced.last);
            self.fact(tid, FactKind::Sigsys(call));
        }
    }

    fn gone(&mut self, tid: u32) {
        self.threads.remove(&tid);
        self.violators.remove(&tid);
        self.reader.forget(tid);
        self.seen().ends(tid);
    }

    fn fact(&self, tid: u32, what: FactKind) {
        let name = comm(tid);
        let mut seen = self.seen();
        let pid = seen.threads.get(&tid).map_or(tid, |thread| thread.pid);
        seen.facts.push(Fact {
            at_us: clock::boot_us(),
            tid,
            thread: ThreadInfo { pid, name },
            what,
        });
    }

    fn detach_all(&mut self) {
        let names: Vec<_> = self.threads.keys().map(|tid| (*tid, comm(*tid))).collect();
        for (tid, name) in names {
            if let Some(thread) = self.seen().threads.get_mut(&tid) {
                thread.name = name;
            }
            let _ended = self.tracer.interrupt(tid);
        }
        let deadline = Instant::now() + DETACH_WITHIN;
        while !self.threads.is_empty() && Instant::now() < deadline {
            match self.tracer.wait() {
                Ok(Some((tid, stop))) => self.let_go(tid, stop),
                Ok(None) => return,
                // Whoever asked for this wakes us again and again.
                Err(_) => {}
            }
        }
        let left = u64::try_from(self.threads.len()).unwrap_or(u64::MAX);
        if left > 0 {
            let mut seen = self.seen();
            seen.untraced = left;
            seen.trouble = Some(format!(
                "threads did not stop within {DETACH_WITHIN:?}: the kernel lets go of them, and what they did last is not known"
            ));
        }
    }

    fn let_go(&mut self, tid: u32, stop: Stop) {
        let mut signal = 0;
        match stop {
            Stop::Gone => {
                self.gone(tid);
                return;
            }
            Stop::Signal(number) => signal = number,
            Stop::Started(child) => self.started(child),
            Stop::Executed(former) => self.executed(tid, former),
            Stop::Syscall => self.syscall(tid),
            Stop::Group | Stop::Interrupted | Stop::Exiting(_) | Stop::Other => {}
        }
        let _killed = self.tracer.detach(tid, signal);
        self.threads.remove(&tid);
    }

    fn seen(&self) -> MutexGuard<'_, super::state::Seen> {
        let seen = self.shared.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_exit_group(abi: SyscallAbi, number: u32) -> bool {
    crate::syscall::names::number(abi, "exit_group") == Some(number)
}

/// The process of a thread.
fn process_of(tid: u32) -> Option<u32> {
    status(tid, "Tgid:")
}

/// A number that a thread's status has.
fn status(tid: u32, name: &str) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

fn own_tid() -> Option<u32> {
    u32::try_from(rustix::thread::gettid().as_raw_pid()).ok()
}
