//! From arguments to what a session needs, resolved once.

use super::capture_mode::CaptureMode;
use super::evidence::Keeping;
use super::law::Law;
use super::opening::TrailPlan;
use super::pause::Pause;
use super::reload::Rules;
use super::start;
use super::syscalls::SyscallMode;
use crate::args::{self, WatchArgs};
use crate::config::Options;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::fsdiff;
use crate::keys;
use crate::policy_file::LoadedPolicy;
use crate::witness::Witnesses;
use anyhow::Context as _;
use sandtrace_audit_chain::note::SigningKey;
use sandtrace_audit_chain::{SegmentLimits, TrailIdentity};
use sandtrace_capture::filesystem::{Baseline, FsConfig};
use sandtrace_capture::network::{EvidenceConfig, NetworkHub};
use sandtrace_event::Digest;
use sandtrace_provider::{DiskFormat, FindError, ManualSpec, ProcRoot, Target};
use sandtrace_sys::netns::NetnsError;
use sandtrace_sys::ring::RingConfig;
use sandtrace_wire::FlowConfig;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that a session needs to know.
pub(crate) struct Settings {
    /// Where frames are kept as they were, if they are.
    pub(crate) evidence: Option<EvidenceConfig>,
    /// The programs of many interfaces, where this is one of those.
    pub(crate) hub: Option<NetworkHub>,
    pub(crate) duration: Option<Duration>,
    pub(crate) identity: TrailIdentity,
    /// Name of the log that the trail is.
    pub(crate) origin: String,
    /// Whether the sandbox is paused, as far as its state is followed.
    pub(crate) pause: Pause,
    pub(crate) policy: Option<LoadedPolicy>,
    /// Accepted resolvers: the policy's and those given by hand.
    pub(crate) resolvers: Vec<IpAddr>,
    /// Addresses that the sandbox may send from; none: any.
    pub(crate) sandbox_addresses: Vec<IpAddr>,
    /// Of each interface.
    pub(crate) ring: RingConfig,
    pub(crate) scan_interval: Duration,
    pub(crate) files: FsConfig,
    /// Of the settings file, where one was read, and what of it is not in force.
    pub(crate) settings_digest: Option<Digest>,
    pub(crate) needs_restart: Vec<&'static str>,
    pub(crate) signing: Signing,
    pub(crate) syscall_interval: Duration,
    pub(crate) capture: CaptureMode,
    /// A silence of the sandbox this long ends a call.
    pub(crate) call_pause: Option<Duration>,
    pub(crate) syscalls: SyscallMode,
    pub(crate) target: Target,
    pub(crate) trail: PathBuf,
}

/// What a caller decides; the rest is found out.
pub(crate) struct Request {
    pub(crate) agent_id: Option<String>,
    pub(crate) duration: Option<Duration>,
    pub(crate) policy: Option<LoadedPolicy>,
    pub(crate) resolvers: Vec<IpAddr>,
    pub(crate) scan_interval: Duration,
    pub(crate) signing: Signing,
    pub(crate) target: Target,
    pub(crate) trail: PathBuf,
}

/// Who vouches for a trail, and how large its files get.
#[derive(Clone, Default)]
pub(crate) struct Signing {
    /// Nobody signs where there is none.
    pub(crate) host_key: Option<Arc<SigningKey>>,
    pub(crate) limits: SegmentLimits,
    /// Who is asked to cosign its checkpoints, if anybody is.
    pub(crate) witnesses: Option<Arc<Witnesses>>,
}

impl Signing {
    /// Loads the host's key, or makes it.
    pub(crate) fn of(options: &Options) -> Result<Self, Failure> {
        let dir = keys::directory(options.state_dir.as_deref())?;
        Ok(Self {
            host_key: Some(keys::host_key(&dir)?),
            limits: options.segments,
            witnesses: Witnesses::start(&options.witnesses).map(Arc::new),
        })
    }
}

impl Settings {
    /// Finds the sandbox.
    pub(crate) fn of_one(
        rules: &Rules,
        args: &WatchArgs,
        sandbox_id: &str,
    ) -> Result<Self, Failure> {
        let options = &rules.options;
        let mut settings = Self::resolve(Request {
            agent_id: args.agent_id.clone(),
            duration: args.duration,
            policy: rules.policy.clone(),
            resolvers: options.resolvers.clone(),
            scan_interval: options.scan_interval,
            target: find(options, args, sandbox_id)?,
            signing: Signing::of(options)?,
            trail: options.trail.clone(),
        })?;
        settings.files = files(args, &settings.target)?;
        settings.files.scan_secrets = options.scan_secrets;
        settings.capture = options.capture;
        settings.call_pause = options.call_pause;
        settings.syscalls = options.syscalls;
        settings.syscall_interval = options.syscall_interval;
        settings.settings_digest = options.file.as_ref().map(|file| file.digest);
        let keeping = options.evidence.as_ref().map(Keeping::make).transpose()?;
        settings.evidence = keeping.map(|keeping| keeping.of(&settings.identity));
        settings.sandbox_addresses.clone_from(&args.sandbox_ip);
        Ok(settings)
    }

    /// Gives the session its identity.
    pub(crate) fn resolve(request: Request) -> Result<Self, Failure> {
        let nonce = random_nonce()?;
        let mut target = request.target;
        target.coverage.extend(start::unknown_layers(&target));
        let agent_id = request
            .agent_id
            .or_else(|| target.agent_id.clone())
            .unwrap_or_else(|| target.sandbox_id.clone());
        let mut resolvers = request.resolvers;
        if let Some(loaded) = &request.policy {
            resolvers.extend_from_slice(loaded.policy.resolvers());
        }
        resolvers.sort_unstable();
        resolvers.dedup();
        let trace_id = format!("trace-{nonce:016x}");
        Ok(Self {
            duration: request.duration,
            pause: Pause::of(target.vmm.clone()),
            origin: format!("{}/{trace_id}", keys::host_name()),
            identity: TrailIdentity {
                agent_id: agent_id.into(),
                sandbox_id: target.sandbox_id.as_str().into(),
                trace_id: trace_id.into(),
                nonce,
            },
            policy: request.policy,
            resolvers,
            evidence: None,
            hub: None,
            sandbox_addresses: Vec::new(),
            ring: RingConfig::default(),
            scan_interval: request.scan_interval,
            files: FsConfig::default(),
            settings_digest: None,
            needs_restart: Vec::new(),
            signing: request.signing,
            syscall_interval: Duration::from_secs(5),
            capture: CaptureMode::Auto,
            call_pause: None,
            syscalls: SyscallMode::Off,
            target,
            trail: request.trail,
        })
    }

    /// How the flow table of an interface is set up.
    pub(crate) fn flows(&self) -> FlowConfig {
        FlowConfig {
            accepted_resolvers: self.resolvers.clone(),
            sandbox_addresses: self.sandbox_addresses.clone(),
            check_macs: true,
            call_pause_us: self.call_pause.map(micros),
            ..FlowConfig::default()
        }
    }

    /// What the trail is to be.
    pub(crate) fn trail_plan(&self) -> TrailPlan {
        TrailPlan {
            path: self.trail.clone(),
            identity: self.identity.clone(),
            origin: self.origin.clone(),
            host_key: self.signing.host_key.clone(),
            limits: self.signing.limits,
            previous: None,
        }
    }

    /// What the sandbox is judged by at first.
    pub(crate) fn law(&self) -> Arc<Law> {
        Arc::new(Law::new(self.policy.clone(), self.resolvers.clone()))
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a sandbox's first look at its files is compared with.
fn files(args: &WatchArgs, target: &Target) -> Result<FsConfig, Failure> {
    let Some(base) = &args.base else {
        return Ok(FsConfig::default());
    };
    let count = target.disks.len() + target.overlays.len();
    if count != 1 {
        let why = format!(
            "--base is compared with one disk or overlay, and {} has {count}: name the one with \
             --disk or --overlay",
            target.sandbox_id
        );
        return Err(Failure::new(Exit::Usage, why));
    }
    base.metadata()
        .with_context(|| format!("read the base {}", base.display()))
        .or_exit(Exit::Unavailable)?;
    Ok(FsConfig {
        baseline: Baseline::Of(fsdiff::source(base, args.base_format)),
        ..FsConfig::default()
    })
}

/// What sets one trail apart from all others.
pub(crate) fn random_nonce() -> Result<u64, Failure> {
    let mut nonce = [0; 8];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .context("get random bytes for the trail's nonce")
        .or_exit(Exit::Internal)?;
    Ok(u64::from_le_bytes(nonce))
}

/// By hand where anything is given by hand, else among the running VMMs.
fn find(options: &Options, args: &WatchArgs, sandbox_id: &str) -> Result<Target, Failure> {
    let by_hand =
        args.pid.is_some() || args.tap.is_some() || args.overlay.is_some() || !args.disk.is_empty();
    let found = if by_hand {
        sandtrace_provider::manual(ManualSpec {
            sandbox_id: sandbox_id.to_owned(),
            agent_id: args.agent_id.clone(),
            pid: args.pid,
            tap: args.tap.clone(),
            netns: args.netns.clone(),
            disks: args.disk.clone(),
            format: args.format.map(|format| match format {
                args::DiskFormat::Raw => DiskFormat::Raw,
                args::DiskFormat::Qcow2 => DiskFormat::Qcow2,
            }),
            overlay: args.overlay.clone(),
        })
    } else {
        sandtrace_provider::find_in(&ProcRoot::host(), sandbox_id, &options.discover)
    };
    let target = found.map_err(failure_of)?;
    check_visible(&target)?;
    Ok(target)
}

/// A watch that cannot see anything would only pretend.
fn check_visible(target: &Target) -> Result<(), Failure> {
    let sees_nothing =
        target.taps.is_empty() && target.disks.is_empty() && target.overlays.is_empty();
    if !sees_nothing {
        return Ok(());
    }
    let hidden = target.vmm.as_ref().is_some_and(|vmm| {
        let opened = std::fs::read_dir(format!("/proc/{}/fd", vmm.pid));
        opened.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    });
    let exit = if hidden {
        Exit::NoPermission
    } else {
        Exit::Unavailable
    };
    let mut reasons: Vec<_> = target.coverage.iter().map(|c| c.missing.as_str()).collect();
    reasons.dedup();
    let message = format!(
        "nothing of sandbox {} can be captured: {}",
        target.sandbox_id,
        reasons.join("; ")
    );
    Err(Failure::new(exit, message))
}

/// How a sandbox that is not found ends the program.
pub(crate) fn failure_of(error: FindError) -> Failure {
    let exit = match &error {
        FindError::InvalidId { .. } | FindError::InvalidAgentId { .. } => Exit::Usage,
        _ if error.is_permission() => {
            return Failure::not_permitted(&error, capability_for(&error));
        }
        _ => Exit::Unavailable,
    };
    Failure {
        exit,
        error: error.into(),
    }
}

/// What it takes to do what was not permitted.
fn capability_for(error: &FindError) -> &'static str {
    match error {
        FindError::Netns(NetnsError::Enter { .. }) => "CAP_SYS_ADMIN",
        FindError::Netns(_) | FindError::Disk { .. } => "CAP_DAC_READ_SEARCH",
        FindError::Interface { .. } => "CAP_NET_RAW",
        _ => "CAP_SYS_PTRACE",
    }
}
