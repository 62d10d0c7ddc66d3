//! The command line of Sandtrace: arguments become settings, settings become
//! a run, and every error becomes one line and a documented exit code.

mod args;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod digest;
mod doctor;
mod exit;
mod extract;
mod fsdiff;
mod generate;
mod keys;
mod list;
mod policy_file;
mod profile;
mod prove;
mod replay;
mod show;
mod stream;
mod verify;
mod watch;
mod witness;

use args::{Cli, Command, ConfigCommand, PolicyCommand, ProfileCommand};
use clap::Parser as _;
use exit::{Exit, Failure};
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// Runs `sandtrace` with its arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(&cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) if is_broken_pipe(&failure.error) => Exit::Success.into(),
        Err(failure) => {
            show::tell(&format!("sandtrace: {}", one_line(&failure.error)));
            failure.exit.into()
        }
    }
}

fn dispatch(command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Watch(args) => watch::run(args),
        Command::List(args) => list::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Stream(args) => stream::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Extract(args) => extract::run(args),
        Command::Fsdiff(args) => fsdiff::run(args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args),
        Command::Prove(args) => prove::prove(args),
        Command::Export(args) => prove::export(args),
        Command::Witness(command) => witness::run(command),
        Command::Policy(PolicyCommand::Check(args)) => policy_file::check(args),
        Command::Config(ConfigCommand::Check(args)) => config::check(args),
        Command::Config(ConfigCommand::Schema) => config::schema(),
        Command::Profile(ProfileCommand::Learn(args)) => profile::learn(args),
        Command::Profile(ProfileCommand::List) => profile::list(),
        Command::Keys(command) => keys::run(command),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    }
}

/// `--help` and `--version` are answers on stdout; the rest is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let exit = if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Success
    };
    // Nobody is left to tell if stderr itself is closed.
    let _closed = error.print();
    exit.into()
}

/// An error with its causes. Some errors name their cause themselves; it is
/// not said twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// The reader of our output went away: it has what it wanted.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[track_caller]
    fn check(error: &anyhow::Error, line: &str) {
        assert_eq!(one_line(error), line);
    }

    #[test]
    fn a_cause_is_said_once() {
        check(&anyhow!("no room"), "no room");
        check(
            &anyhow!("no room").context("write trail t"),
            "write trail t: no room",
        );
        check(
            &anyhow!("no room").context("write trail t: no room"),
            "write trail t: no room",
        );
    }
}
