//! `cargo xtask fuzz`: the fuzz targets, each for a bounded time.

use crate::repo::{Repo, find_program};
use crate::step::{step, streamed};
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

/// Runs one target, or all of them one after the other.
pub(crate) fn run(repo: &Repo, options: &Options) -> Result<()> {
    if !repo.root.join("fuzz/Cargo.toml").is_file() {
        bail!("this checkout has no fuzz targets");
    }
    if find_program("cargo-fuzz").is_none() {
        bail!("no cargo-fuzz: cargo install --locked cargo-fuzz");
    }
    let targets = match &options.target {
        Some(target) => vec![target.clone()],
        None => targets(repo)?,
    };
    for target in targets {
        let limit = format!("-max_total_time={}", options.seconds);
        step(&format!("fuzz {target} for {} s", options.seconds), || {
            let mut command = nightly(repo);
            command.args(["run", &target]);
            // What is found goes into the first directory; the others are read.
            let found = repo.root.join("fuzz/corpus").join(&target);
            fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
            command.arg(found).args(seeds(repo, &target));
            command.args(["--", &limit]);
            streamed(command.args(longest_input(&target)))
        })?;
    }
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

fn targets(repo: &Repo) -> Result<Vec<String>> {
    let output = nightly(repo)
        .arg("list")
        .output()
        .context("listing fuzz targets")?;
    if !output.status.success() {
        bail!(
            "cargo-fuzz needs nightly Rust (rustup toolchain install nightly): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.lines().map(str::to_owned).collect())
}

/// `cargo +nightly fuzz`; the toolchain is chosen by rustup's cargo, so not
/// by the one that runs this program.
fn nightly(repo: &Repo) -> Command {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz"]).current_dir(&repo.root);
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command
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
