//! Settings from four layers: the command line over the environment over the
//! settings file over what holds without any of them.

mod check;
mod file;
mod layer;
mod words;

use crate::args::{DiscoverArgs, ShowArgs, WatchArgs};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::watch::{CaptureMode, SyscallMode};
pub(crate) use check::check;
pub(crate) use file::SettingsFile;
pub(crate) use layer::Layer;
use sandtrace_provider::DiscoverConfig;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the settings file is, unless told otherwise.
const DEFAULT_PATH: &str = "/etc/sandtrace/config.toml";

/// The variable that says where the settings file is.
const PATH_VARIABLE: &str = "SANDTRACE_CONFIG";

/// What `watch` and `list` go by.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The settings file, where one was read.
    pub(crate) file: Option<SettingsFile>,
    pub(crate) policy: Option<PathBuf>,
    pub(crate) trail: PathBuf,
    pub(crate) trail_dir: PathBuf,
    pub(crate) resolvers: Vec<IpAddr>,
    pub(crate) scan_interval: Duration,
    pub(crate) scan_secrets: bool,
    pub(crate) capture: CaptureMode,
    pub(crate) syscalls: SyscallMode,
    pub(crate) syscall_interval: Duration,
    /// `None`: nobody is asked whether a sandbox is paused.
    pub(crate) state_interval: Option<Duration>,
    pub(crate) max_sandboxes: usize,
    pub(crate) discover: DiscoverConfig,
    pub(crate) show: ShowArgs,
    /// What the command line says, to go over what is read again.
    arguments: Layer,
    /// The file that it names.
    config: Option<PathBuf>,
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

    /// Reads file and environment again.
    pub(crate) fn again(&self) -> Result<Self, Failure> {
        let below = Below::read(self.config.as_deref())?;
        let options = Self::resolve(self.arguments.clone(), below)?;
        Ok(Self {
            config: self.config.clone(),
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
        let lowest = below.file.as_ref().map(|file| file.layer.clone());
        let below_arguments = below.environment.over(lowest.unwrap_or_default());
        let layer = arguments.clone().over(below_arguments);
        let discover = DiscoverConfig::default();
        let scan_interval = layer.scan_interval.unwrap_or(Duration::from_secs(2));
        if scan_interval.is_zero() {
            let why = "--scan-interval 0s would read disks without a pause: give a time such as 2s";
            return Err(Failure::new(Exit::Usage, why));
        }
        let state_interval = layer.state_interval.unwrap_or(Duration::from_secs(10));
        Ok(Self {
            policy: layer.policy,
            trail: layer.trail.unwrap_or_else(|| "./trace.jsonl".into()),
            trail_dir: layer.trail_dir.unwrap_or_else(|| "./trails".into()),
            resolvers: layer.resolvers.unwrap_or_default(),
            scan_interval,
            scan_secrets: layer.scan_secrets.unwrap_or_default(),
            capture: layer.capture.unwrap_or_default(),
            syscalls: layer.syscalls.unwrap_or(SyscallMode::Auto),
            syscall_interval: layer.syscall_interval.unwrap_or(Duration::from_secs(5)),
            state_interval: Some(state_interval).filter(|interval| !interval.is_zero()),
            max_sandboxes: layer.max_sandboxes.unwrap_or(1024),
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
            file: below.file,
            arguments,
            config: None,
        })
    }
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
        syscalls: args.syscalls,
        syscall_interval: args.syscall_interval,
        state_interval: args.state_interval,
        max_sandboxes: args.max_sandboxes,
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
