//! Files made from the command line's own definition: completions and manual pages.

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use clap::CommandFactory as _;
use std::io::Write as _;

/// `sandtrace completions SHELL`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sandtrace", &mut script);
    std::io::stdout().write_all(&script).or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

/// `sandtrace man DIR`: one page per command.
pub(crate) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Cli::command(), &args.dir)
        .with_context(|| format!("write manual pages into {}", args.dir.display()))
        .or_exit(Exit::CannotCreate)?;
    Ok(Exit::Success)
}
