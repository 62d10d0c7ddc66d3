//! What the VMM process asks of the host's kernel.
//!
//! A [`SyscallSource`] (a backend) counts calls and reports rare ones; the
//! [`SyscallCollector`] names them, groups them by thread and makes
//! observations. Guest system calls are none of this: they never leave the
//! guest's kernel.

mod collector;
mod confinement;
mod decode;
pub mod ebpf;
mod groups;
mod hide;
mod known;
pub mod names;
pub mod ptrace;
mod rare;
mod waiting;
mod words;

pub use collector::{SyscallCollector, SyscallConfig};
pub use groups::VmmKind;

use sandtrace_event::{SyscallAbi, SyscallBackend};
use sandtrace_sys::syscall::{CallTable, ForbiddenCall};

/// One kind of call of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// The thread.
    pub tid: u32,
    /// Table of `number`.
    pub abi: SyscallAbi,
    /// Number of the call.
    pub number: u32,
}

/// What calls of one kind added up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that returned.
    pub count: u64,
    /// Of those, errors, interrupted ones included.
    pub errors: u64,
    /// Of those, interrupted and left to be restarted.
    pub interrupted: u64,
    /// Nanoseconds between entry and return.
    pub time_ns: u64,
}

impl Tally {
    /// Counts one call that returned `value`.
    pub fn add(&mut self, value: i64, is_error: bool, time_ns: u64) {
        self.count = self.count.saturating_add(1);
        self.errors = self.errors.saturating_add(u64::from(is_error));
        let interrupted = is_error && RESTARTS.contains(&value);
        self.interrupted = self.interrupted.saturating_add(u64::from(interrupted));
        self.time_ns = self.time_ns.saturating_add(time_ns);
    }

    fn merge(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.errors = self.errors.saturating_add(other.errors);
        self.interrupted = self.interrupted.saturating_add(other.interrupted);
        self.time_ns = self.time_ns.saturating_add(other.time_ns);
    }
}

/// `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND` and
/// `ERESTART_RESTARTBLOCK` (linux/errno.h): the kernel's own words for a call
/// that a signal interrupted.
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];

/// A thread that made calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// Its process.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: Vec<u8>,
}

/// Bytes that a call's argument points to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fetched {
    /// What was read.
    pub bytes: Vec<u8>,
    /// There was more than what is kept.
    pub cut: bool,
}

/// A rare call with what its arguments point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCall {
    /// Table of `number`.
    pub abi: SyscallAbi,
    /// Number of the call.
    pub number: u32,
    /// The six argument registers.
    pub arguments: [u64; 6],
    /// The path it names; `Some(None)` where it could not be read.
    pub path: Option<Option<Fetched>>,
    /// The socket address it names; `Some(None)` where it could not be read.
    pub address: Option<Option<Fetched>>,
    /// First arguments of `execve`.
    pub argv: Vec<Fetched>,
    /// Other texts that it names, in the order of `rare::Shape::texts`;
    /// `Some(None)` where one could not be read.
    pub texts: [Option<Option<Fetched>>; 2],
}

/// Something worth a record of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Microseconds of `CLOCK_BOOTTIME`.
    pub at_us: u64,
    /// The thread.
    pub tid: u32,
    /// Who that is.
    pub thread: ThreadInfo,
    /// What it did, or what happened to it.
    pub what: FactKind,
}

/// What a [`Fact`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// It asked for a rare call.
    Call(RawCall),
    /// SIGSYS is delivered: a seccomp filter met this call.
    Sigsys(Option<(SyscallAbi, u32)>),
    /// Its process ends with this exit status.
    Ends(i32),
}

/// Something that a source could not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What kind of loss.
    pub kind: LossKind,
    /// How much.
    pub count: u64,
    /// In a sentence.
    pub detail: String,
}

/// What kind of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Calls that were not counted: a table was full.
    Counts,
    /// Threads or processes that were not followed: a table was full.
    Threads,
    /// Rare calls that were dropped: a ring was full.
    Facts,
    /// Tracing broke off.
    Tracing,
}

/// Counts since the last time.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Per thread and call; none is zero.
    pub calls: Vec<(CallKey, ThreadInfo, Tally)>,
    /// Per thread (its id first), how often KVM left the guest on it; none is
    /// zero. Empty where that cannot be seen.
    pub kvm_exits: Vec<(u32, ThreadInfo, u64)>,
    /// What was not seen meanwhile.
    pub losses: Vec<Loss>,
}

/// One way of seeing system calls.
pub trait SyscallSource: Send {
    /// Which way.
    fn backend(&self) -> SyscallBackend;

    /// Rare calls and other facts since the last time, in order; at most
    /// 16,384, beyond which they are counted as lost.
    fn facts(&mut self) -> Vec<Fact>;

    /// Counts since the last time.
    fn counts(&mut self) -> Counts;

    /// Whether nothing is left to be seen: every process has ended.
    fn has_ended(&self) -> bool;

    /// Lets go of every process. Facts and counts up to here can still be taken.
    fn detach(&mut self);
}

/// A call that a filter met, as the kernel tells of it.
fn forbidden(call: ForbiddenCall) -> (SyscallAbi, u32) {
    (abi(call.table), call.number)
}

fn abi(table: CallTable) -> SyscallAbi {
    match table {
        CallTable::Native => SyscallAbi::Native,
        CallTable::I386 => SyscallAbi::I386,
        CallTable::X32 => SyscallAbi::X32,
    }
}

/// Name of a thread as it is now; empty where it has ended.
fn comm(tid: u32) -> Vec<u8> {
    let mut name = std::fs::read(format!("/proc/{tid}/comm")).unwrap_or_default();
    if name.last() == Some(&b'\n') {
        name.pop();
    }
    name
}
