//! Settings from four layers: the command line over the environment over the
//! settings file over what holds without any of them.

mod check;
mod file;
mod layer;
mod schema;
mod words;

use crate::args::{DiscoverArgs, ShowArgs, StateArgs, WatchArgs};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::watch::{CaptureMode, SyscallMode};
use crate::witness::WitnessTarget;
pub(crate) use check::check;
pub(crate) use file::SettingsFile;
pub(crate) use layer::Layer;
use sandtrace_audit_chain::SegmentLimits;
use sandtrace_provider::DiscoverConfig;
pub(crate) use schema::print as schema;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
pub(crate) use words::Size;

/// Where the settings file is, unless told otherwise.
const DEFAULT_PATH: &str = "/etc/sandtrace/config.toml";

/// The variable that says where the settings file is.
const PATH_VARIABLE: &str = "SANDTRACE_CONFIG";

/// Longest file of a trail.
const SEGMENT_BYTES: u64 = 1 << 30;

/// Longest file of frames.
const EVIDENCE_BYTES: u64 = 256 << 20;

/// What `watch` and `list` go by.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The settings file, where one was read.
    pub(crate) file: Option<SettingsFile>,
    /// Keys of what changed since the start and is in force only after another.
    pub(crate) needs_restart: Vec<&'static str>,
    pub(crate) policy: Option<PathBuf>,
    pub(crate) trail: PathBuf,
    pub(crate) trail_dir: PathBuf,
    pub(crate) resolvers: Vec<IpAddr>,
    pub(crate) scan_interval: Duration,
    pub(crate) scan_secrets: bool,
    pub(crate) capture: CaptureMode,
    /// A silence of the sandbox this long ends a call, if there is such a bound.
    pub(crate) call_pause: Option<Duration>,
    pub(crate) syscalls: SyscallMode,
    pub(crate) syscall_interval: Duration,
    /// `None`: nobody is asked whether a sandbox is paused.
    pub(crate) state_interval: Option<Duration>,
    pub(crate) max_sandboxes: usize,
    /// Where the host's key is, if not at the usual place.
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) witnesses: Vec<WitnessTarget>,
    pub(crate) segments: SegmentLimits,
    /// Where frames are kept as they were, if they are.
    pub(crate) evidence: Option<EvidencePlace>,
    pub(crate) discover: DiscoverConfig,
    pub(crate) show: ShowArgs,
    /// What the command line says, to go over what is read again.
    arguments: Layer,
    /// What all layers said together.
    said: Layer,
    /// The file that it names.
    config: Option<PathBuf>,
}

/// Where frames are kept as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EvidencePlace {
    pub(crate) directory: PathBuf,
    /// Longest file, in bytes.
    pub(crate) max_bytes: u64,
}

/// Where this host's key is said to be, for commands that have no other
/// setting; `None`: at the usual place.
pub(crate) fn state_dir(args: &StateArgs) -> Result<Option<PathBuf>, Failure> {
    if args.state_dir.is_some() {
        return Ok(args.state_dir.clone());
    }
    Ok(Below::read(None)?.layer().state_dir)
}

/// A settings file and the environment, before the command line goes over them.
struct Below {
    file: Option<SettingsFile>,
    environment: Layer,
}

impl Options {
    /// Reads file and environment and puts the arguments of `watch` over them.
    pub(crate) fn of_watch(args: &WatchArgs) -> Result<Self, Failure> {
        let below = Below::read(args.config.as_deref())?;
        let options = Self::resolve(watch_layer(args), below)?;
        Ok(Self {
            config: args.config.clone(),
            ..options
        })
    }

    /// Reads file and environment again. What needs a restart stays as it is.
    pub(crate) fn again(&self) -> Result<Self, Failure> {
        let below = Below::read(self.config.as_deref())?;
        // What does not go together is refused, whatever of it would count.
        let read = Self::resolve(self.arguments.clone(), below)?;
        let (said, needs_restart) = self.said.renewed(read.said);
        let options = Self::by(said, self.arguments.clone(), read.file)?;
        Ok(Self {
            config: self.config.clone(),
            needs_restart,
            ..options
        })
    }

    /// The same for `list`.
    pub(crate) fn of_list(config: Option<&Path>, args: &DiscoverArgs) -> Result<Self, Failure> {
        let below = Below::read(config)?;
        let mut layer = Layer::default();
        discover_layer(&mut layer, args);
        Self::resolve(layer, below)
    }

    fn resolve(arguments: Layer, below: Below) -> Result<Self, Failure> {
        let said = arguments.clone().over(below.layer());
        Self::by(said, arguments, below.file)
    }

    fn by(layer: Layer, arguments: Layer, file: Option<SettingsFile>) -> Result<Self, Failure> {
        let said = layer.clone();
        let scan_interval = layer.scan_interval.unwrap_or(Duration::from_secs(2));
        if scan_interval.is_zero() {
            let why = "scan_interval (--scan-interval) of 0s would read disks without a pause: give a \
                       time such as 2s";
            return Err(wrong(arguments.scan_interval.is_some(), why));
        }
        if layer.max_size.is_some() && layer.evidence_pcap.is_none() {
            let why = "max_size (--max-size) is that of evidence files, and none are kept: name their \
                       directory by evidence_pcap (--evidence-pcap)";
            return Err(wrong(arguments.max_size.is_some(), why));
        }
        let max_bytes = layer.max_size.map_or(EVIDENCE_BYTES, |size| size.0);
        let state_interval = layer.state_interval.unwrap_or(Duration::from_secs(10));
        let discover = DiscoverConfig::default();
        Ok(Self {
            policy: layer.policy,
            trail: layer.trail.unwrap_or_else(|| "./trace.jsonl".into()),
            trail_dir: layer.trail_dir.unwrap_or_else(|| "./trails".into()),
            resolvers: layer.resolvers.unwrap_or_default(),
            scan_interval,
            scan_secrets: layer.scan_secrets.unwrap_or_default(),
            capture: layer.capture.unwrap_or_default(),
            call_pause: layer.call_pause.filter(|pause| !pause.is_zero()),
            syscalls: layer.syscalls.unwrap_or(SyscallMode::Auto),
            syscall_interval: layer.syscall_interval.unwrap_or(Duration::from_secs(5)),
            state_interval: Some(state_interval).filter(|interval| !interval.is_zero()),
            max_sandboxes: layer.max_sandboxes.map_or(1024, NonZeroUsize::get),
            state_dir: layer.state_dir,
            witnesses: layer.witnesses.unwrap_or_default(),
            segments: SegmentLimits {
                bytes: Some(layer.segment_size.map_or(SEGMENT_BYTES, |size| size.0)),
                age_us: layer.segment_age.map(micros),
            },
            evidence: layer.evidence_pcap.map(|directory| EvidencePlace {
                directory,
                max_bytes,
            }),
            discover: DiscoverConfig {
                providers: layer.providers.unwrap_or_default(),
                docker_socket: layer.docker_socket.unwrap_or(discover.docker_socket),
                patience: discover.patience,
            },
            show: ShowArgs {
                output: layer.outputs.unwrap_or_default(),
                filter_type: layer.filter_type.unwrap_or_default(),
                filter_tier: layer.filter_tier.unwrap_or_default(),
                filter_verdict: layer.filter_verdict.unwrap_or_default(),
            },
            file,
            needs_restart: Vec::new(),
            arguments,
            said,
            config: None,
        })
    }
}

/// Settings that do not go together: whose fault they are decides the exit code.
fn wrong(by_arguments: bool, why: &'static str) -> Failure {
    let exit = if by_arguments {
        Exit::Usage
    } else {
        Exit::Config
    };
    Failure::new(exit, why)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Below {
    /// `config` is the file that the command line names.
    fn read(config: Option<&Path>) -> Result<Self, Failure> {
        let environment = Layer::from_variables(variable).map_err(|(name, why)| {
            Failure::new(Exit::Config, format!("environment variable {name}: {why}"))
        })?;
        let file = settings_path(config).map(|path| SettingsFile::read(&path));
        let file = file.transpose().or_exit(Exit::Config)?;
        Ok(Self { file, environment })
    }

    /// The environment over the file.
    fn layer(&self) -> Layer {
        let lowest = self.file.as_ref().map(|file| file.layer.clone());
        self.environment.clone().over(lowest.unwrap_or_default())
    }
}

/// The file to read: the one that was named, else the usual one if it is there.
fn settings_path(config: Option<&Path>) -> Option<PathBuf> {
    let named = config.map(Path::to_owned);
    let named = named.or_else(|| variable(PATH_VARIABLE).map(PathBuf::from));
    let usual = || Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists());
    named.or_else(usual)
}

/// An empty variable is as good as none.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    // What is not UTF-8 is refused by whoever parses it, not passed over.
    Some(value.to_string_lossy().into_owned())
}

fn watch_layer(args: &WatchArgs) -> Layer {
    let mut layer = Layer {
        policy: args.policy.clone(),
        trail: args.trail.clone(),
        trail_dir: args.trail_dir.clone(),
        resolvers: given(&args.resolver),
        scan_interval: args.scan_interval,
        scan_secrets: args.scan_secrets.then_some(true),
        capture: args.capture,
        call_pause: args.call_pause,
        syscalls: args.syscalls,
        syscall_interval: args.syscall_interval,
        state_interval: args.state_interval,
        max_sandboxes: args.max_sandboxes,
        state_dir: args.state.state_dir.clone(),
        witnesses: given(&args.segments.witness),
        segment_size: args.segments.segment_size,
        segment_age: args.segments.segment_age,
        evidence_pcap: args.evidence.evidence_pcap.clone(),
        max_size: args.evidence.max_size,
        outputs: given(&args.show.output),
        filter_type: given(&args.show.filter_type),
        filter_tier: given(&args.show.filter_tier),
        filter_verdict: given(&args.show.filter_verdict),
        ..Layer::default()
    };
    discover_layer(&mut layer, &args.discover);
    layer
}

fn discover_layer(layer: &mut Layer, args: &DiscoverArgs) {
    layer.providers = given(&args.provider);
    layer.docker_socket = args.docker_socket.clone();
}

/// A list on the command line replaces the one below, if there is any.
fn given<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    Some(list.to_vec()).filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests;
