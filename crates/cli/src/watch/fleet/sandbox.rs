//! One sandbox among many: what it is made of while it is watched, how it is
//! attached and how it ends.

use super::calls::{self, SharedCalls, VmmCalls};
use super::{Edition, Shared};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::watch::files::DiskWatch;
use crate::watch::judge::Judge;
use crate::watch::law::Law;
use crate::watch::moment::{control, now};
use crate::watch::outlet::{Key, Lane, Load, Outlet, Parcel};
use crate::watch::reload::Reloaded;
use crate::watch::settings::{Request, Settings};
use crate::watch::start;
use crate::watch::states::Subject;
use crate::watch::syscalls::Chosen;
use crate::watch::trail::{Appender, End, Entry, Sinks};
use anyhow::Context as _;
use sandtrace_capture::Observer as _;
use sandtrace_capture::network::NetworkCollector;
use sandtrace_event::{DetachReason, EndReason, QuiesceMethod, Reconciliation, SandboxDetached};
use sandtrace_provider::Target;
use sandtrace_sys::process::Pidfd;
use sandtrace_sys::ring::RingConfig;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A ring for one of a thousand sandboxes: half a MiB, so that the memory of
/// one stays below a MiB.
const RING: RingConfig = RingConfig {
    block_size: 64 << 10,
    blocks: 8,
    retire_ms: 20,
    snap_length: 4096,
};

/// A sandbox under watch.
pub(super) struct Sandbox {
    pub(super) key: Key,
    pub(super) network: Vec<NetworkCollector>,
    pub(super) judge: Judge,
    /// What it is judged by, and of which edition that is.
    pub(super) law: Arc<Law>,
    pub(super) edition: u64,
    /// Its state, until somebody follows it.
    pub(super) subject: Option<Subject>,
    pub(super) load: Arc<Load>,
    pub(super) vmm: Pidfd,
    pub(super) disks: Vec<SharedDisk>,
    pub(super) calls: Option<SharedCalls>,
}

/// A disk that the scanners take in turns; `None` once the sandbox ended, or
/// before its baseline is taken.
pub(super) type SharedDisk = Arc<Mutex<DiskSlot>>;

/// Where a disk's watch is.
pub(super) enum DiskSlot {
    /// No baseline yet.
    New(Box<(crate::watch::files::FileSource, Judge)>),
    /// Being watched.
    Watched(Box<DiskWatch>),
    /// The sandbox ended.
    Ended,
}

/// Why a sandbox is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    VmmExited,
    InterfaceGone,
    Interrupted,
    Duration,
}

impl Sandbox {
    /// Opens its rings and its trail.
    pub(super) fn attach(
        key: Key,
        target: Target,
        shared: &Shared,
        edition: &Edition,
    ) -> Result<Self, Failure> {
        let options = edition.options();
        let identity = target.vmm.clone();
        let vmm = target.vmm.as_ref();
        let vmm = vmm.ok_or_else(|| Failure::new(Exit::Unavailable, "it has no process"))?;
        let vmm = Pidfd::open(vmm.pid, vmm.start_ticks.0)
            .with_context(|| format!("hold on to process {}", vmm.pid))
            .or_exit(Exit::Unavailable)?;
        let mut settings = Settings::resolve(Request {
            agent_id: None,
            duration: None,
            policy: edition.rules.policy.clone(),
            resolvers: options.resolvers.clone(),
            scan_interval: options.scan_interval,
            signing: shared.signing.clone(),
            trail: trail_path(&options.trail_dir, &target),
            target,
        })?;
        settings.ring = RING;
        settings.files.scan_secrets = options.scan_secrets;
        settings.capture = options.capture;
        let keeping = shared.evidence.as_ref();
        settings.evidence = keeping.map(|keeping| keeping.of(&settings.identity));
        settings.settings_digest = options.file.as_ref().map(|file| file.digest);
        let network = start::attach_networks(&settings)?;
        let syscalls = Chosen::among_many(&settings, &shared.programs);
        let sinks = Sinks::Shared(Arc::clone(&shared.sinks));
        let opened = shared.earlier.plan(&settings)?.open()?;
        let opening = opened.opening;
        let witnesses = settings.signing.witnesses.as_deref();
        let appender = Appender::new(opened.writer, sinks).cosigned(witnesses);
        let load = Arc::new(Load::default());
        let open = Parcel::Open(key, Box::new(appender), Arc::clone(&load));
        let failed = || Failure::new(Exit::Internal, "the thread of the trails is gone");
        let trails = shared.trails_of(key).ok_or_else(failed)?;
        trails.send(open).map_err(|_| failed())?;
        let law = settings.law();
        let lane = |patient| {
            Outlet::Shared(Lane {
                key,
                queue: trails.clone(),
                load: Arc::clone(&load),
                patient,
            })
        };
        let judge = |patient| Judge::new(&law, lane(patient));
        let mut first = judge(false);
        let at = now();
        let mut start = start::trail_start(&settings, &network);
        syscalls.declare(&mut start);
        first.observe(control(at, opening.record(start)));
        first.observe(control(at, settings.target.attached().into()));
        let calls = syscalls.collector(&settings);
        let calls = calls.map(|calls| VmmCalls::new(calls, judge(false), Arc::clone(&load)));
        let subject = identity.map(|vmm| Subject::new(vmm, Arc::clone(&law), lane(false)));
        let disks = start::file_sources(&settings).into_iter();
        let disk = |source| DiskSlot::New(Box::new((source, judge(true))));
        Ok(Self {
            key,
            network,
            disks: disks.map(|it| Arc::new(Mutex::new(disk(it)))).collect(),
            calls,
            edition: edition.number,
            subject,
            law,
            judge: first,
            load,
            vmm,
        })
    }

    /// Records what became of newer settings, once, and judges by them.
    pub(super) fn judge_by(&mut self, number: u64, reloaded: &Reloaded) {
        if self.edition >= number {
            return;
        }
        self.edition = number;
        let rules = &reloaded.rules;
        let (change, policy) = (reloaded.change.clone(), rules.policy.clone());
        let resolvers = &rules.options.resolvers;
        self.law
            .change(change, policy, resolvers, &self.judge.queue);
    }

    /// Last scans, last frames, last records.
    pub(super) fn finish(mut self, stop: Stop) {
        let quiesce = match stop {
            Stop::VmmExited => QuiesceMethod::Detached,
            _ => QuiesceMethod::Live,
        };
        for disk in &self.disks {
            if let DiskSlot::Watched(mut disk) =
                std::mem::replace(&mut *lock(disk), DiskSlot::Ended)
            {
                disk.scan(quiesce);
            }
        }
        if let Some(calls) = &self.calls {
            calls::finish(calls);
        }
        let networks = std::mem::take(&mut self.network);
        let reconciliation: Vec<Reconciliation> = networks
            .into_iter()
            .filter_map(|network| network.finish(&mut self.judge))
            .collect();
        let (detach, reason) = match stop {
            Stop::VmmExited => (DetachReason::VmmExited, EndReason::SandboxEnded),
            Stop::InterfaceGone => (DetachReason::InterfaceGone, EndReason::CaptureFailed),
            Stop::Duration => (DetachReason::Duration, EndReason::Duration),
            Stop::Interrupted => (DetachReason::Interrupted, EndReason::Interrupted),
        };
        let at = now();
        self.judge
            .observe(control(at, SandboxDetached { reason: detach }.into()));
        // A trail that failed was told of when it did.
        let _failed = self.judge.queue.send(Entry::End(End {
            at,
            reason,
            reconciliation,
        }));
    }
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `<sandbox id>.<pid>-<start ticks>.<milliseconds>.jsonl`: the id is safe in a name, and
/// neither an id that is used again nor a restart of this program takes the
/// name of an earlier trail.
fn trail_path(dir: &Path, target: &Target) -> PathBuf {
    let vmm = target.vmm.as_ref();
    let (pid, start) = vmm.map_or((0, 0), |vmm| (vmm.pid, vmm.start_ticks.0));
    let time = now().wall.0 / 1_000_000;
    dir.join(format!("{}.{pid}-{start}.{time}.jsonl", target.sandbox_id))
}
