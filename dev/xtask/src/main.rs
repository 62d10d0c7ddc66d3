//! `cargo xtask`: set-up, checks, benchmarks and fuzzing of this repository.
//!
//! Its compile time delays everything else, so it depends on next to nothing.

#![expect(
    clippy::print_stdout,
    reason = "its output is for the person or the CI job that runs it"
)]

mod bench;
mod bpf;
mod conformance;
mod deny_toml;
mod fuzz;
mod gates;
mod nextest;
mod packages;
mod repo;
mod setup;
mod step;
mod tidy;

use anyhow::{Result, bail};
use repo::Repo;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  demo [ARGS…]     install what is missing, build, run `sandtrace demo stripe-exfil ARGS…`
  test [--quick]   install what is missing, run every check and every test;
                   --quick: no set-up, no documentation, no doctests, no licences
  setup [--demo | --test]
                   only install what is missing for one of them, or for both
  tidy             the repository's own rules: dependency direction, licences,
                   minimum Rust version, file headers, …
  bpf [--write]    check that the committed eBPF object is what clang 14 makes of its
                   source, or make it anew
  conformance      compare with the logs that Zeek publishes for its captures
                   (docs/conformance.md)
  bench [capture | verify | latency | syscalls | net | all] [ARGS…]
                   measure, each figure beside a reference (as root)
  fuzz [TARGET] [--seconds N]
                   run the fuzz targets, each for N seconds (60); what breaks one is
                   kept in fuzz/artifacts
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["demo", rest @ ..] => setup::demo(&Repo::find()?, rest),
        ["test"] => gates::run(&Repo::find()?, gates::Extent::Everything),
        ["test", "--quick"] => gates::run(&Repo::find()?, gates::Extent::Quick),
        ["setup"] => setup::run(
            &Repo::find()?,
            &[setup::Purpose::Test, setup::Purpose::Demo],
        ),
        ["setup", "--demo"] => setup::run(&Repo::find()?, &[setup::Purpose::Demo]),
        ["setup", "--test"] => setup::run(&Repo::find()?, &[setup::Purpose::Test]),
        ["tidy"] => tidy::run(&Repo::find()?),
        ["bpf"] => bpf::check(&Repo::find()?),
        ["bpf", "--write"] => bpf::write(&Repo::find()?),
        ["conformance"] => conformance::run(&Repo::find()?),
        ["bench", rest @ ..] => bench::run(&Repo::find()?, rest),
        ["fuzz", rest @ ..] => fuzz::run(&Repo::find()?, &fuzz::Options::parse(rest)?),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!(
            "unknown command `{}`; see cargo xtask --help",
            other.join(" ")
        ),
    }
}
