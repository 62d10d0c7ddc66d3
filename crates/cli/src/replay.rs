//! `sandtrace replay`: a capture file on the path that live frames take.
//!
//! The only clock is the file's: wall times are its timestamps, monotonic
//! times count from its first frame.

mod source;

use crate::args::ReplayArgs;
use crate::digest::digest_of;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::keys;
use crate::policy_file::{self, LoadedPolicy};
use crate::show;
use crate::watch::judge::Judge;
use crate::watch::law::Law;
use crate::watch::opening::TrailPlan;
use crate::watch::settings::{micros, random_nonce};
use crate::watch::start::own_digest;
use crate::watch::trail::{End, Entry, Finished, TrailThread};
use crate::watch::{interruptions, summarise};
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandtrace_audit_chain::{SegmentLimits, TrailIdentity};
use sandtrace_capture::Observer as _;
use sandtrace_capture::network::{FileError, Progress, Replay, ReplayConfig, first_moment};
use sandtrace_event::{
    BackendInForce, Count, Coverage, DetachReason, Digest, EndReason, EvidenceFile, EvidenceTier,
    Layer, Observation, Payload, SandboxAttached, SandboxDetached, Timestamp, TrailStart,
};
use sandtrace_output::WhenBusy;
use sandtrace_wire::FlowConfig;
use source::Source;
use std::collections::BTreeMap;
use std::io::{self, pipe};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Frames between two looks at signals and at the trail.
const FRAMES_AT_ONCE: usize = 1024;
/// Where a file was taken it does not say: the operator vouches that it was on the host.
const TIER: EvidenceTier = EvidenceTier::Hypervisor;

pub(crate) fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    let settings = Settings::from_args(args)?;
    let source = Source::open(&args.file).or_unreadable(args)?;
    let mut replay = Replay::open(source.clone(), settings.config()).or_unreadable(args)?;
    if !settings.sandbox_addresses.is_empty() {
        replay.look_ahead(source::open(&args.file).or_unreadable(args)?);
    }
    let interrupted = interruptions()?;
    let sinks = show::sinks(&args.show, WhenBusy::Wait)?;
    let (trail_ended, failed) = pipe().or_exit(Exit::Internal)?;
    let opened = settings.trail_plan(args)?.open()?;
    let trail = TrailThread::start(opened.writer, sinks, failed);
    let judge = Judge::new(&settings.law(), trail.queue.clone());
    let wakes = [&interrupted, &trail_ended].map(std::os::fd::AsFd::as_fd);
    let run = Run {
        replay,
        judge,
        source,
    };
    let failed = run.through(&settings, wakes)?;
    let finished: Finished = match trail.join() {
        Some(result) => result.or_exit(Exit::Io)?,
        None => {
            return Err(Failure::new(Exit::Internal, "the trail's thread panicked"));
        }
    };
    summarise(&finished);
    match failed {
        None => Ok(Exit::Success),
        Some(error) => Err(error).or_unreadable(args),
    }
}

/// A replay and where its events go.
struct Run {
    replay: Replay<Source>,
    judge: Judge,
    source: Source,
}

impl Run {
    /// Reads the file and writes every record of the trail. Answers why the
    /// file could not be read to its end, if so.
    fn through(
        mut self,
        settings: &Settings,
        wakes: [BorrowedFd<'_>; 2],
    ) -> Result<Option<FileError>, Failure> {
        let at = settings.first;
        self.judge
            .observe(control(at, settings.trail_start().into()));
        self.judge.observe(control(at, settings.attached().into()));
        let mut progress = Ok(Progress::More);
        let mut interrupted = false;
        while matches!(progress, Ok(Progress::More)) && !interrupted {
            progress = self.replay.read(FRAMES_AT_ONCE, &mut self.judge);
            interrupted = any_readable(wakes).or_exit(Exit::Internal)?;
        }
        let failed = progress.err();
        let (at, frames) = (self.replay.now(), self.replay.frames());
        self.replay.finish(failed.as_ref(), &mut self.judge);
        if !interrupted {
            // Where it cannot be read the record is of what was, as its length says.
            let _says_its_length = self.source.drain();
        }
        let file = settings.evidence(&self.source, frames, at);
        self.judge.observe(control(at, file.into()));
        let (detached, ended) = match (&failed, interrupted) {
            (Some(_), _) => (DetachReason::EndOfFile, EndReason::CaptureFailed),
            (None, true) => (DetachReason::Interrupted, EndReason::Interrupted),
            (None, false) => (DetachReason::EndOfFile, EndReason::EndOfFile),
        };
        let detached = SandboxDetached { reason: detached };
        self.judge.observe(control(at, detached.into()));
        // A trail that can take no more tells so when it is joined.
        let _trail_failed = self.judge.queue.send(Entry::End(End {
            at,
            reason: ended,
            reconciliation: Vec::new(),
        }));
        Ok(failed)
    }
}

fn control(at: Timestamp, payload: Payload) -> Observation {
    Observation {
        at,
        payload,
        tier: TIER,
    }
}

fn any_readable(wakes: [BorrowedFd<'_>; 2]) -> io::Result<bool> {
    let mut fds = wakes.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Everything that is settled before the first frame.
struct Settings {
    identity: TrailIdentity,
    origin: String,
    binary_digest: Option<Digest>,
    policy: Option<LoadedPolicy>,
    resolvers: Vec<IpAddr>,
    sandbox_addresses: Vec<IpAddr>,
    call_pause: Option<Duration>,
    name: String,
    /// The first frame's moment, which the first records bear.
    first: Timestamp,
}

impl Settings {
    fn from_args(args: &ReplayArgs) -> Result<Self, Failure> {
        if !sandtrace_provider::is_valid_id(&args.sandbox_id) {
            let message = format!(
                "{:?} is no sandbox id: use 1 to 128 of A-Z a-z 0-9 . _ -",
                args.sandbox_id
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let policy = args.policy.as_deref().map(policy_file::load).transpose()?;
        let mut resolvers = args.resolver.clone();
        if let Some(loaded) = &policy {
            resolvers.extend_from_slice(loaded.policy.resolvers());
        }
        resolvers.sort_unstable();
        resolvers.dedup();
        // The capture itself names a deterministic trail: other captures get other ids.
        let nonce = if args.deterministic {
            let digest = source::open(&args.file).and_then(digest_of);
            let digest = digest.or_unreadable(args)?.0;
            digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
        } else {
            random_nonce()?
        };
        let trace_id = format!("trace-{nonce:016x}");
        let host = if args.deterministic {
            "sandtrace/replay".to_owned()
        } else {
            keys::host_name()
        };
        let name = args.file.file_name().unwrap_or(args.file.as_os_str());
        Ok(Self {
            origin: format!("{host}/{trace_id}"),
            binary_digest: (!args.deterministic).then(own_digest).flatten(),
            identity: TrailIdentity {
                agent_id: args
                    .agent_id
                    .as_ref()
                    .unwrap_or(&args.sandbox_id)
                    .as_str()
                    .into(),
                sandbox_id: args.sandbox_id.as_str().into(),
                trace_id: trace_id.into(),
                nonce,
            },
            policy,
            resolvers,
            sandbox_addresses: args.sandbox_ip.clone(),
            call_pause: args.call_pause.filter(|pause| !pause.is_zero()),
            first: first_moment(source::open(&args.file).or_unreadable(args)?)
                .or_unreadable(args)?,
            name: show::escaped(&name.to_string_lossy()),
        })
    }

    /// A trail that is the same every time cannot be signed: whoever makes it
    /// again would have to know the key.
    fn trail_plan(&self, args: &ReplayArgs) -> Result<TrailPlan, Failure> {
        if args.trail.exists() {
            let message = format!(
                "trail {} exists; choose another path or move it away",
                args.trail.display()
            );
            return Err(Failure::new(Exit::CannotCreate, message));
        }
        let host_key = (!args.deterministic)
            .then(|| keys::directory_of(&args.state).and_then(|dir| keys::host_key(&dir)))
            .transpose()?;
        Ok(TrailPlan {
            path: args.trail.clone(),
            identity: self.identity.clone(),
            origin: self.origin.clone(),
            host_key,
            limits: SegmentLimits::default(),
            previous: None,
        })
    }

    fn config(&self) -> ReplayConfig {
        ReplayConfig {
            name: self.name.clone(),
            flows: FlowConfig {
                accepted_resolvers: self.resolvers.clone(),
                sandbox_addresses: self.sandbox_addresses.clone(),
                // Frames of others are in a file too, unless it is known whose is which.
                check_macs: !self.sandbox_addresses.is_empty(),
                call_pause_us: self.call_pause.map(micros),
                ..FlowConfig::default()
            },
            tier: TIER,
        }
    }

    fn law(&self) -> Arc<Law> {
        Arc::new(Law::new(self.policy.clone(), self.resolvers.clone()))
    }

    fn trail_start(&self) -> TrailStart {
        let backend = |layer, backend: &str, reason: &str| BackendInForce {
            backend: backend.to_owned(),
            layer,
            reason: reason.to_owned(),
        };
        let policy = self.policy.as_ref();
        TrailStart {
            cadence: None,
            key: None,
            previous: None,
            settings_digest: None,
            binary_digest: self.binary_digest,
            // The file's monotonic clock is of no boot of this host.
            boot_id: None,
            capture: vec![
                backend(Layer::Network, "capture_file", "a capture file is replayed"),
                backend(Layer::Filesystem, "off", FRAMES_ONLY),
                backend(Layer::Syscall, "off", FRAMES_ONLY),
            ],
            needs_restart: Vec::new(),
            nonce: format!("{:016x}", self.identity.nonce),
            origin: self.origin.clone(),
            policy_digest: policy.map(|policy| policy.digest),
            policy_path: policy.map(|policy| policy.path.display().to_string()),
            resolvers: self.resolvers.iter().map(ToString::to_string).collect(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn attached(&self) -> SandboxAttached {
        let coverage = |layer, missing: &str| Coverage {
            layer,
            missing: missing.to_owned(),
        };
        let directions = if self.sandbox_addresses.is_empty() {
            "which way frames went, but for files of Sandtrace itself: of two addresses, who sends \
             the first frame between them is taken for the sandbox"
        } else {
            "which way frames went, but for files of Sandtrace itself: it is told by the addresses \
             that were given for the sandbox"
        };
        SandboxAttached {
            agent_id: None,
            coverage: vec![
                coverage(Layer::Network, directions),
                coverage(Layer::Filesystem, FRAMES_ONLY),
                coverage(Layer::Syscall, FRAMES_ONLY),
            ],
            disks: Vec::new(),
            labels: BTreeMap::from([("capture_file".to_owned(), self.name.clone())]),
            passed_before: Vec::new(),
            provider: "replay".to_owned(),
            taps: Vec::new(),
            template: None,
            vmm: None,
        }
    }

    /// The capture as it was read, up to its last frame at this moment.
    fn evidence(&self, source: &Source, frames: u64, last: Timestamp) -> EvidenceFile {
        let (bytes, sha256) = source.digest();
        EvidenceFile {
            bytes: Count(bytes),
            file: self.name.clone(),
            first_at: self.first.wall,
            frames: Count(frames),
            interface: None,
            last_at: last.wall,
            sha256,
        }
    }
}

const FRAMES_ONLY: &str = "a capture file holds frames only";

/// Says which file an error is about.
trait OrUnreadable<T> {
    fn or_unreadable(self, args: &ReplayArgs) -> Result<T, Failure>;
}

impl<T, E> OrUnreadable<T> for Result<T, E>
where
    Self: anyhow::Context<T, E>,
{
    fn or_unreadable(self, args: &ReplayArgs) -> Result<T, Failure> {
        self.with_context(|| format!("read capture {}", args.file.display()))
            .or_exit(Exit::Malformed)
    }
}
