//! The VMM's system calls: which backend, and the thread that reports them.

use super::judge::Judge;
use super::moment::now;
use super::settings::Settings;
use crate::exit::{Exit, Failure};
use sandtrace_capture::syscall::ebpf::EbpfHub;
use sandtrace_capture::syscall::ptrace::{PtraceError, PtraceSource};
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig, SyscallSource, VmmKind};
use sandtrace_event::{BackendInForce, Layer, TrailStart, VmmIdentity};
use sandtrace_sys::bpf::{BpfConfig, BpfError, BpfQuota};
use sandtrace_sys::ptrace::AttachError;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks for rare calls.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How system calls are to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SyscallMode {
    /// eBPF where the kernel allows it, else not at all
    Auto,
    /// Programs on the kernel's tracepoints, or no watch
    Ebpf,
    /// Trace every thread, which slows each call by tens of µs, or no watch
    Ptrace,
    /// Not at all
    #[default]
    Off,
}

/// Why a backend is in force, or none.
const ALLOWED: &str = "the kernel allows it";
const NO_VM: &str = "the sandbox is no VM: its processes are the agent's own, not a VMM's";
const NO_PROCESS: &str = "no VMM process was found or given (--pid)";

/// The programs in the kernel, for as many sandboxes as are watched.
pub(super) struct Programs {
    hub: Option<EbpfHub>,
    why: String,
}

impl Programs {
    /// Loads them as `mode` says, with room for `sandboxes`.
    pub(super) fn load(mode: SyscallMode, sandboxes: usize) -> Result<Self, Failure> {
        let load = || EbpfHub::load(tables_for(sandboxes), SHARE);
        let (hub, why) = match mode {
            SyscallMode::Off => (None, "not asked for".to_owned()),
            SyscallMode::Ptrace => {
                let why = "--syscalls ptrace traces one sandbox at a time: name it, or use auto";
                return Err(Failure::new(Exit::Usage, why));
            }
            SyscallMode::Ebpf => (Some(load().map_err(ebpf_failure)?), "asked for".to_owned()),
            SyscallMode::Auto => match load() {
                Ok(hub) => (Some(hub), ALLOWED.to_owned()),
                Err(error) => (None, error.to_string()),
            },
        };
        Ok(Self { hub, why })
    }
}

/// What one of many sandboxes may use of the programs: as many rare calls as
/// an escape makes, and no more than others can bear.
const SHARE: BpfQuota = BpfQuota {
    events: 256,
    processes: 512,
};

/// Tables for so many: a VMM has some dozen threads and some dozen kinds of calls.
fn tables_for(sandboxes: usize) -> BpfConfig {
    let sandboxes = u32::try_from(sandboxes).unwrap_or(u32::MAX).clamp(64, 4096);
    BpfConfig {
        // Those that end are let go a moment after others began.
        owners: sandboxes * 2,
        processes: 4096.max(sandboxes * 8),
        threads: 16_384.max(sandboxes * 32),
        ended: 16_384.max(sandboxes * 32),
        tallies: 32_768.max(sandboxes * 128),
        ring: 8 << 20,
        ..BpfConfig::default()
    }
}

fn alone() -> Result<EbpfHub, Failure> {
    EbpfHub::load(BpfConfig::default(), BpfQuota::EVERYTHING).map_err(ebpf_failure)
}

fn without_bpf(error: &BpfError) -> String {
    format!("{error}; `--syscalls ptrace` needs no BPF but slows the VMM")
}

/// A backend that was chosen, and why.
pub(super) struct Chosen {
    source: Option<Box<dyn SyscallSource>>,
    in_force: BackendInForce,
}

impl Chosen {
    /// Attaches to the VMM as the settings say.
    pub(super) fn attach(settings: &Settings) -> Result<Self, Failure> {
        let target = &settings.target;
        match (settings.syscalls, &target.vmm) {
            (SyscallMode::Off, _) => Ok(Self::off("not asked for")),
            (mode, Some(_)) if !target.is_vm() => Self::off_unless_asked(mode, NO_VM),
            (mode, None) => Self::off_unless_asked(mode, NO_PROCESS),
            (SyscallMode::Auto, Some(vmm)) => Ok(Self::automatically(vmm)),
            (SyscallMode::Ebpf, Some(vmm)) => {
                Self::counted(vmm, &alone()?, "asked for").map_err(ebpf_failure)
            }
            (SyscallMode::Ptrace, Some(vmm)) => {
                let source = PtraceSource::attach(vmm.pid).map_err(ptrace_failure)?;
                Ok(Self::on(Box::new(source), "ptrace", "asked for"))
            }
        }
    }

    /// Tracing slows the VMM a hundredfold more: never without being asked for.
    fn automatically(vmm: &VmmIdentity) -> Self {
        let counted = EbpfHub::load(BpfConfig::default(), BpfQuota::EVERYTHING)
            .and_then(|programs| Self::counted(vmm, &programs, ALLOWED));
        counted.unwrap_or_else(|error| Self::off(&without_bpf(&error)))
    }

    /// Attaches to one VMM of many, by the programs that all share. That it
    /// cannot be counted is no reason not to watch the rest of it.
    pub(super) fn among_many(settings: &Settings, programs: &Programs) -> Self {
        let target = &settings.target;
        match (&programs.hub, &target.vmm) {
            (None, _) => Self::off(&programs.why),
            (_, Some(_)) if !target.is_vm() => Self::off(NO_VM),
            (_, None) => Self::off(NO_PROCESS),
            (Some(hub), Some(vmm)) => Self::counted(vmm, hub, &programs.why)
                .unwrap_or_else(|error| Self::off(&error.to_string())),
        }
    }

    fn counted(vmm: &VmmIdentity, programs: &EbpfHub, why: &str) -> Result<Self, BpfError> {
        let source = programs.watch(vmm.pid)?;
        let kvm = if programs.sees_kvm() {
            "KVM exits are counted too, where this host's KVM passes its tracepoint"
        } else {
            "KVM exits are not counted: the kernel has no tracepoint kvm:kvm_exit"
        };
        let why = format!("{why}; {kvm}");
        Ok(Self::on(Box::new(source), "ebpf", &why))
    }

    fn off_unless_asked(mode: SyscallMode, why: &str) -> Result<Self, Failure> {
        if mode == SyscallMode::Auto {
            return Ok(Self::off(why));
        }
        let message = format!("system calls cannot be watched: {why}");
        Err(Failure::new(Exit::Unavailable, message))
    }

    fn off(reason: &str) -> Self {
        Self {
            source: None,
            in_force: in_force("off", reason),
        }
    }

    fn on(source: Box<dyn SyscallSource>, backend: &str, reason: &str) -> Self {
        Self {
            source: Some(source),
            in_force: in_force(backend, reason),
        }
    }

    /// Says in the trail's first record what was chosen.
    pub(super) fn declare(&self, start: &mut TrailStart) {
        start.capture.retain(|own| own.layer != Layer::Syscall);
        start.capture.push(self.in_force.clone());
    }

    /// What reports, if there is anything.
    pub(super) fn collector(self, settings: &Settings) -> Option<SyscallCollector> {
        let source = self.source?;
        let config = config(settings, settings.target.vmm.as_ref()?);
        Some(SyscallCollector::new(config, source, now()))
    }

    /// Starts to report, if there is anything.
    pub(super) fn start(self, settings: &Settings, judge: Judge) -> Option<SyscallsThread> {
        let collector = self.collector(settings)?;
        let interval = settings.syscall_interval;
        let (last, ends) = channel();
        let thread = std::thread::spawn(move || run(collector, interval, judge, &ends));
        Some(SyscallsThread { last, thread })
    }
}

fn in_force(backend: &str, reason: &str) -> BackendInForce {
    BackendInForce {
        backend: backend.to_owned(),
        layer: Layer::Syscall,
        reason: reason.to_owned(),
    }
}

fn config(settings: &Settings, vmm: &VmmIdentity) -> SyscallConfig {
    let disks = settings.target.disks.iter();
    let disks = disks.map(|disk| disk.identity.path.clone().into_bytes());
    let opened = settings.target.disks.iter();
    let opened = opened.map(|disk| disk.open_path.as_os_str().as_bytes().to_vec());
    SyscallConfig {
        pid: vmm.pid,
        vmm: VmmKind::of(&vmm.name),
        disks: disks.chain(opened).collect(),
        name: format!("process {} ({})", vmm.pid, vmm.name),
    }
}

/// Handle of the thread that reports system calls.
pub(super) struct SyscallsThread {
    last: Sender<()>,
    thread: JoinHandle<()>,
}

impl SyscallsThread {
    /// Lets go of the VMM and waits for the last records.
    pub(super) fn finish(self) {
        drop(self.last);
        // A panic there is a bug of ours; the trail must still end.
        let _panicked = self.thread.join();
    }
}

fn run(mut collector: SyscallCollector, interval: Duration, mut judge: Judge, ends: &Receiver<()>) {
    let mut due = Instant::now() + interval;
    while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(POLL_EVERY) {
        collector.poll(now(), &mut judge);
        if Instant::now() >= due {
            collector.end_interval(now(), &mut judge);
            due = Instant::now() + interval;
        }
    }
    collector.finish(now(), &mut judge);
}

fn ebpf_failure(error: BpfError) -> Failure {
    let exit = match error {
        BpfError::NotPermitted => Exit::NoPermission,
        _ => Exit::Unavailable,
    };
    Failure {
        exit,
        error: error.into(),
    }
}

fn ptrace_failure(error: PtraceError) -> Failure {
    let exit = match error {
        PtraceError::Attach(
            AttachError::NotPermitted { .. }
            | AttachError::Refused { .. }
            | AttachError::Yama { .. },
        ) => Exit::NoPermission,
        _ => Exit::Unavailable,
    };
    Failure {
        exit,
        error: error.into(),
    }
}
