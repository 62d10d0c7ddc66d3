//! One sandbox among many: what it is made of while it is watched, how it is
//! attached and how it ends.

use super::calls::{self, SharedCalls, VmmCalls};
use super::capture::Finish;
use super::earlier::process_part;
use super::following::{Following, Lost};
use super::{Edition, Losers, Shared};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::watch::files::{DiskWatch, FileSource, NewDisk};
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
use sandtrace_event::{
    Coverage, DetachReason, EndReason, Layer, QuiesceMethod, Reconciliation, SandboxDetached,
};
use sandtrace_provider::{Outline, Sighting, Target};
use sandtrace_sys::process::Pidfd;
use sandtrace_sys::ring::RingConfig;
use sandtrace_wire::Numbering;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A ring for one of a thousand sandboxes: half a MiB, so that the memory of
/// one stays below a MiB. A block is closed by time, however little it holds,
/// so their number says how long nobody may read: 640 ms.
pub(super) const RING: RingConfig = RingConfig {
    block_size: 16 << 10,
    blocks: 32,
    retire_ms: 20,
    snap_length: 4096,
};

/// Most interfaces that one sandbox has when it is attached.
const MOST_INTERFACES: usize = 64;

/// A sandbox under watch.
pub(super) struct Sandbox {
    pub(super) key: Key,
    pub(super) network: Vec<NetworkCollector>,
    /// Interfaces that are gone, with their sandbox or without it, which
    /// shows a moment later.
    pub(super) gone: Vec<NetworkCollector>,
    /// When that moment is over.
    pub(super) gone_until_us: u64,
    /// Each ends when what is left of a lost interface was reported.
    pub(super) losing: Vec<Receiver<()>>,
    /// Tells who looks for other interfaces.
    pub(super) lost: Lost,
    /// Tells that there is something to look for.
    pub(super) losers: Losers,
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

/// A disk that the scanners take in turns.
pub(super) type SharedDisk = Arc<Mutex<DiskSlot>>;

/// Where a disk's watch is.
pub(super) enum DiskSlot {
    /// No baseline yet.
    New(Box<NewDisk>),
    /// Being watched.
    Watched(Box<DiskWatch>),
    /// The sandbox ended.
    Ended,
}

impl DiskSlot {
    pub(super) fn new(source: FileSource, judge: Judge) -> SharedDisk {
        Arc::new(Mutex::new(Self::New(Box::new(NewDisk::new(source, judge)))))
    }
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
    /// Opens its rings and its trail. `outline` is how it looked before it
    /// was described.
    pub(super) fn attach(
        key: Key,
        (sighting, outline): (Box<Sighting>, Outline),
        target: Target,
        shared: &Shared,
        edition: &Edition,
    ) -> Result<(Self, Following), Failure> {
        let vmm = hold(&target)?;
        let mut settings = settings(target, shared, edition)?;
        settings.hub = shared.hub_of(key);
        let network = attach_networks(&mut settings)?;
        let syscalls = Chosen::among_many(&settings, &shared.programs);
        let sinks = Sinks::Shared(Arc::clone(&shared.sinks));
        let plan = shared.earlier.plan(&settings)?;
        let path = plan.path.clone();
        let opened = plan.open()?;
        shared.earlier.add(&path);
        let opening = opened.opening;
        let witnesses = settings.signing.witnesses.as_deref();
        let appender = Appender::new(opened.writer, sinks).cosigned(witnesses);
        let load = Arc::new(Load::default());
        let open = Parcel::Open(key, Box::new(appender), Arc::clone(&load));
        let failed = || Failure::new(Exit::Internal, "the thread of the trails is gone");
        let trails = shared.trails_of(key).ok_or_else(failed)?;
        trails.send(open).map_err(|_| failed())?;
        let law = settings.law();
        let lane = Lane {
            key,
            queue: trails.clone(),
            load: Arc::clone(&load),
            patient: false,
        };
        let judge = |patient| {
            let lane = lane.clone();
            Judge::new(&law, Outlet::Shared(Lane { patient, ..lane }))
        };
        let mut first = judge(false);
        let at = now();
        let mut start = start::trail_start(&settings, &network);
        syscalls.declare(&mut start);
        let is_first = opening.is_first();
        first.observe(control(at, opening.record(start)));
        settings.target.passed_before = start::passed_before(&network);
        first.observe(control(at, settings.target.attached().into()));
        start::report_passed(&network, is_first, &mut first);
        start::report_left_open(&settings, is_first, &mut first);
        let calls = syscalls.collector(&settings);
        let calls = calls.map(|calls| VmmCalls::new(calls, judge(false), Arc::clone(&load)));
        let identity = settings.target.vmm.clone();
        let subject = identity.map(|vmm| {
            let queue = Outlet::Shared(lane.clone());
            Subject::new(vmm, Arc::clone(&law), queue, settings.pause.clone())
        });
        let disks = start::file_sources(&settings).into_iter();
        let disks = disks.map(|source| DiskSlot::new(source, judge(true)));
        let lost = Lost::default();
        let sandbox = Self {
            key,
            network,
            gone: Vec::new(),
            gone_until_us: 0,
            losing: Vec::new(),
            lost: Arc::clone(&lost),
            losers: Arc::clone(&shared.losers),
            disks: disks.collect(),
            calls,
            edition: edition.number,
            subject,
            law: Arc::clone(&law),
            judge: first,
            load,
            vmm,
        };
        let following = Following::new(key, sighting, outline, settings, (law, lane, lost));
        Ok((sandbox, following))
    }

    /// The interface with this number, whether it is still there or not.
    pub(super) fn numbered(&mut self, number: u32) -> Option<(&mut NetworkCollector, &mut Judge)> {
        let networks = self.network.iter_mut().chain(&mut self.gone);
        let mut networks = networks.filter(|it| it.number() == Some(number));
        Some((networks.next()?, &mut self.judge))
    }

    /// Reports what is left of interfaces that went without it. It goes on,
    /// and others are looked for.
    pub(super) fn lose(&mut self, finish: &Sender<Finish>) {
        for network in std::mem::take(&mut self.gone) {
            lock(&self.lost).push(network.interface().to_owned());
            self.give_up(network, finish);
        }
        lock(&self.losers).push(self.key);
    }

    /// Reports what is left of an interface.
    pub(super) fn give_up(&mut self, mut network: NetworkCollector, finish: &Sender<Finish>) {
        network.forsake();
        let (done, losing) = channel();
        self.losing.push(losing);
        let judge = Judge::new(&self.law, self.judge.queue.clone());
        // The finishers live longer than whoever captures.
        let _gone = finish.send(Finish::Interface(Box::new(network), judge, done));
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

    /// Its trail failed: nothing of it is recorded any more.
    pub(super) fn abandon(self) {
        for disk in &self.disks {
            // A scan that runs is waited for.
            *lock(disk) = DiskSlot::Ended;
        }
        if let Some(calls) = &self.calls {
            lock(calls).take();
        }
    }

    /// Last scans, last frames, last records.
    pub(super) fn finish(mut self, stop: Stop) {
        let quiesce = match stop {
            Stop::VmmExited => QuiesceMethod::Detached,
            _ => QuiesceMethod::Live,
        };
        for disk in &self.disks {
            // A baseline that is being taken is waited for.
            match std::mem::replace(&mut *lock(disk), DiskSlot::Ended) {
                DiskSlot::Watched(mut disk) => disk.scan(quiesce),
                DiskSlot::New(disk) => disk.report_unseen(),
                DiskSlot::Ended => {}
            }
        }
        if let Some(calls) = &self.calls {
            calls::finish(calls);
        }
        for losing in std::mem::take(&mut self.losing) {
            // Nothing is ever sent: it ends.
            let _ended = losing.recv();
        }
        let networks = std::mem::take(&mut self.network).into_iter();
        let networks = networks.chain(std::mem::take(&mut self.gone));
        let reconciliation: Vec<Reconciliation> = networks
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

/// Its process, whoever has the pid later.
fn hold(target: &Target) -> Result<Pidfd, Failure> {
    let vmm = target.vmm.as_ref();
    let vmm = vmm.ok_or_else(|| Failure::new(Exit::Unavailable, "it has no process"))?;
    Pidfd::open(vmm.pid, vmm.start_ticks.0)
        .with_context(|| format!("hold on to process {}", vmm.pid))
        .or_exit(Exit::Unavailable)
}

fn settings(target: Target, shared: &Shared, edition: &Edition) -> Result<Settings, Failure> {
    let options = edition.options();
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
    settings.call_pause = options.call_pause;
    let keeping = shared.evidence.as_ref();
    settings.evidence = keeping.map(|keeping| keeping.of(&settings.identity));
    settings.settings_digest = options.file.as_ref().map(|file| file.digest);
    settings.needs_restart.clone_from(&options.needs_restart);
    Ok(settings)
}

/// Opens what can be opened: an interface that cannot be captured is taken
/// off the target and told as coverage. Where none can be, that is an error.
fn attach_networks(settings: &mut Settings) -> Result<Vec<NetworkCollector>, Failure> {
    let taps = std::mem::take(&mut settings.target.taps);
    let (count, most) = (taps.len(), MOST_INTERFACES);
    let (mut networks, mut failure) = (Vec::new(), None);
    if count > most {
        settings.target.coverage.push(Coverage {
            layer: Layer::Network,
            missing: format!("of {count} interfaces only {most} are captured"),
        });
    }
    for (index, tap) in taps.into_iter().take(most).enumerate() {
        match start::attach_network(settings, &tap, Numbering::of(index, count)) {
            Ok(network) => {
                networks.push(network);
                settings.target.taps.push(tap);
            }
            Err(failed) => {
                let (name, why) = (&tap.interface, &failed.error);
                settings.target.coverage.push(Coverage {
                    layer: Layer::Network,
                    missing: format!("interface {name:?} cannot be captured: {why:#}"),
                });
                failure = Some(failed);
            }
        }
    }
    match failure {
        Some(failure) if networks.is_empty() => Err(failure),
        _ => Ok(networks),
    }
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `<sandbox id>.<pid>-<start ticks>.<milliseconds>.jsonl`: neither an id that
/// is used again nor a restart of this program takes the name of an earlier
/// trail.
fn trail_path(dir: &Path, target: &Target) -> PathBuf {
    let vmm = target.vmm.as_ref();
    let (pid, start) = vmm.map_or((0, 0), |vmm| (vmm.pid, vmm.start_ticks.0));
    let time = now().wall.0 / 1_000_000;
    let process = process_part(&target.sandbox_id, pid, start);
    dir.join(format!("{process}.{time}.jsonl"))
}
