//! `cargo xtask fuzz`: the fuzz targets, each for a bounded time.

use crate::repo::{GUEST_TARGET, Repo};
use crate::step::{collected, quiet, step};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What to run, and how long.
pub(crate) struct Options {
    target: Option<String>,
    seconds: u32,
}

impl Options {
    /// Reads `[TARGET] [--seconds N]`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            target: None,
            seconds: 60,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "--seconds" => {
                    let value = arguments.next().context("--seconds needs a number")?;
                    options.seconds = value
                        .parse()
                        .with_context(|| format!("--seconds {value}: not a number"))?;
                }
                flag if flag.starts_with('-') => bail!("fuzz: unknown flag {flag}"),
                target => options.target = Some(target.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Instrumentation by which libFuzzer sees what an input reached: counters
/// beside each edge and the operands of comparisons, as in
/// <https://clang.llvm.org/docs/SanitizerCoverage.html>. LLVM's own pass makes
/// it, so that any toolchain does; the parsers have no `unsafe` for an address
/// sanitizer to look at.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// One input that takes longer is a finding.
const MOST_SECONDS: u32 = 10;
/// A target that holds more is a finding.
const MOST_MIB: u32 = 1024;

/// Runs one target, or all of them one after the other.
pub(crate) fn run(repo: &Repo, options: &Options) -> Result<()> {
    let all = targets(repo)?;
    let targets = match &options.target {
        Some(target) if !all.contains(target) => {
            bail!("no fuzz target {target}; there are {}", all.join(", "))
        }
        Some(target) => vec![target.clone()],
        None => all,
    };
    step("building the fuzz targets", || build(repo))?;
    for target in targets {
        let title = format!("fuzz {target} for {} s", options.seconds);
        step(&title, || fuzz(repo, &target, options.seconds))?;
    }
    Ok(())
}

/// With `--target`, so that only the targets and what they are made of are
/// instrumented, not the programs that build them.
fn build(repo: &Repo) -> Result<()> {
    let arguments = ["build", "--release", "--target", GUEST_TARGET];
    let mut command = repo.cargo(arguments);
    command.args(["--manifest-path", "fuzz/Cargo.toml"]);
    quiet(command.env("RUSTFLAGS", COVERAGE))
}

fn fuzz(repo: &Repo, target: &str, seconds: u32) -> Result<()> {
    // What is found goes into the first directory; the others are read.
    let found = repo.root.join("fuzz/corpus").join(target);
    let broken = repo.root.join("fuzz/artifacts").join(target);
    for directory in [&found, &broken] {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let programs = repo.root.join("fuzz/target").join(GUEST_TARGET);
    let mut command = Command::new(programs.join("release").join(target));
    command.arg(found).args(seeds(repo, target));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={MOST_SECONDS}"));
    command.arg(format!("-rss_limit_mb={MOST_MIB}"));
    command.arg(format!("-artifact_prefix={}/", broken.display()));
    command.args(["-print_final_stats=1", "-verbosity=0"]);
    let (output, is_sound) = collected(command.args(longest_input(target)))?;
    if !is_sound {
        bail!("{target} broke; its input is in {}", broken.display());
    }
    let stat = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", |line| line.trim_start_matches(':').trim())
    };
    println!(
        "    {} inputs, {} reached something new, {} MiB at most",
        stat("stat::number_of_executed_units"),
        stat("stat::new_units_added"),
        stat("stat::peak_rss_mb"),
    );
    Ok(())
}

/// libFuzzer makes inputs of 4 KiB unless a seed is longer: too little for a
/// file system, whose superblock alone ends at 2 KiB, and for captures.
fn longest_input(target: &str) -> Option<&'static str> {
    matches!(target, "ext4" | "partition" | "qcow2" | "capture_file").then_some("-max_len=1048576")
}

/// Files that others published, to begin with.
fn seeds(repo: &Repo, target: &str) -> Vec<PathBuf> {
    let folders: &[&str] = match target {
        "capture_file" => &["ja4/pcap", "zeek/traces", "community-id/pcaps"],
        "ext4" => &["ext4"],
        _ => &[],
    };
    let folders = folders.iter().map(|folder| repo.corpora().join(folder));
    folders.filter(|folder| folder.is_dir()).collect()
}

/// By the names of their sources.
fn targets(repo: &Repo) -> Result<Vec<String>> {
    let sources = repo.root.join("fuzz/fuzz_targets");
    let reading = || format!("reading {}", sources.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&sources).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let options = Options::parse(&["dns", "--seconds", "5"]).unwrap();
        assert_eq!(
            (options.target.as_deref(), options.seconds),
            (Some("dns"), 5)
        );
        assert!(Options::parse(&["--seconds"]).is_err());
        assert!(Options::parse(&["--minutes"]).is_err());
    }
}
