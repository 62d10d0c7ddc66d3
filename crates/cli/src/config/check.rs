//! `sandtrace config check`: what the settings are, and where each is from.

use super::{Below, Layer, Options, PATH_VARIABLE, Size};
use crate::args::ConfigCheckArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::keys;
use crate::policy_file;
use anyhow::Context as _;
use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

/// Loads everything that a watch would load.
pub(crate) fn check(args: &ConfigCheckArgs) -> Result<Exit, Failure> {
    let below = Below::read(args.file.as_deref())?;
    if below.file.is_none() {
        let why = format!(
            "there is no settings file {}: name one, also by {PATH_VARIABLE}",
            super::DEFAULT_PATH
        );
        return Err(Failure::new(Exit::Config, why));
    }
    let environment = below.environment.clone();
    let options = Options::resolve(Layer::default(), below)?;
    if let Some(policy) = &options.policy {
        policy_file::load(policy)?;
    }
    print(&options, &environment)
        .context("write to standard output")
        .or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

fn print(options: &Options, environment: &Layer) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    let in_file = options.file.iter().flat_map(|file| file.layer.keys());
    let in_file: Vec<_> = in_file.collect();
    if let Some(file) = &options.file {
        writeln!(out, "{}: valid, {}", file.path.display(), file.digest)?;
    }
    let variables = environment.keys();
    for (setting, value) in Layer::ALL.iter().zip(values(options)) {
        let key = setting.key;
        let source = if variables.contains(&key) {
            setting.variable
        } else if in_file.contains(&key) {
            "file"
        } else {
            "default"
        };
        writeln!(out, "  {key:<24} {value:<32} {source}")?;
    }
    Ok(())
}

/// In the order of [`Layer::ALL`], as a file would say them.
fn values(options: &Options) -> [String; Layer::ALL.len()] {
    let time = |time| humantime::format_duration(time).to_string();
    let capture = clap::ValueEnum::to_possible_value(&options.capture);
    let syscalls = clap::ValueEnum::to_possible_value(&options.syscalls);
    let evidence = options.evidence.as_ref();
    let show = &options.show;
    let discover = &options.discover;
    [
        options
            .policy
            .as_deref()
            .map_or_else(none, |path| path.display().to_string()),
        options.trail.display().to_string(),
        options.trail_dir.display().to_string(),
        list(&options.resolvers),
        time(options.scan_interval),
        options.scan_secrets.to_string(),
        capture.map_or_else(none, |value| value.get_name().to_owned()),
        time(options.call_pause.unwrap_or_default()),
        syscalls.map_or_else(none, |value| value.get_name().to_owned()),
        time(options.syscall_interval),
        time(options.state_interval.unwrap_or_default()),
        options.max_sandboxes.to_string(),
        keys::directory(options.state_dir.as_deref())
            .map_or_else(|_| none(), |dir| dir.display().to_string()),
        list(&options.witnesses),
        options
            .segments
            .bytes
            .map_or_else(none, |bytes| Size(bytes).to_string()),
        options
            .segments
            .age_us
            .map_or_else(none, |age| time(Duration::from_micros(age))),
        evidence.map_or_else(none, |place| place.directory.display().to_string()),
        evidence.map_or_else(none, |place| Size(place.max_bytes).to_string()),
        if discover.providers.is_empty() {
            "all".to_owned()
        } else {
            list(&discover.providers)
        },
        discover.docker_socket.display().to_string(),
        list(&show.output),
        list(&show.filter_type),
        list(show.filter_tier.iter().map(|tier| tier.as_str())),
        list(show.filter_verdict.iter().map(|verdict| verdict.as_str())),
    ]
}

fn none() -> String {
    "-".to_owned()
}

fn list(values: impl IntoIterator<Item = impl Display>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    if values.is_empty() {
        none()
    } else {
        values.join(",")
    }
}
