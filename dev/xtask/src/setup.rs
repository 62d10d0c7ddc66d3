//! From a fresh machine to one where the tests and the demo run.

use crate::packages;
use crate::repo::{GUEST_TARGET, Repo, as_root, find_program, is_root};
use crate::step::{quiet, step, streamed};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The release of cargo-nextest that is installed where there is none; a
/// newer one may ask for a newer Rust.
const NEXTEST: &str = "cargo-nextest@0.9.143";

/// What the machine is set up for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `cargo xtask test`: debug builds, nextest.
    Test,
    /// `cargo xtask demo`: release builds.
    Demo,
}

impl Purpose {
    /// Name of cargo's output directory.
    fn directory(self) -> &'static str {
        match self {
            Self::Test => "debug",
            Self::Demo => "release",
        }
    }

    fn profile_flags(self) -> &'static [&'static str] {
        match self {
            Self::Test => &[],
            Self::Demo => &["--release"],
        }
    }
}

/// Installs and builds whatever is missing; does nothing twice.
pub(crate) fn run(repo: &Repo, purposes: &[Purpose]) -> Result<()> {
    let begun = Instant::now();
    packages::install()?;
    if purposes.contains(&Purpose::Test) {
        install_nextest(repo)?;
    }
    build_guest(repo, purposes)?;
    match purposes.first() {
        Some(Purpose::Test) if !is_root() => {
            println!("==> not root: no kernel for the microVM, its tests will be skipped");
        }
        Some(purpose) => fetch_kernel(repo, *purpose)?,
        None => {}
    }
    println!("set up in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Sets up, builds and shows the first scenario on a real microVM.
pub(crate) fn demo(repo: &Repo, arguments: &[&str]) -> Result<()> {
    run(repo, &[Purpose::Demo])?;
    step("building sandtrace", || {
        streamed(&mut repo.cargo(["build", "--release", "--package", "sandtrace"]))
    })?;
    let sandtrace = repo.target.join("release/sandtrace");
    println!("==> {} demo stripe-exfil", relative(&sandtrace).display());
    let mut command = if is_root() {
        Command::new(&sandtrace)
    } else {
        println!("    (through sudo: taps and namespaces need root)");
        as_root(&sandtrace)?
    };
    streamed(command.args(["demo", "stripe-exfil"]).args(arguments))
}

fn install_nextest(repo: &Repo) -> Result<()> {
    if find_program("cargo-nextest").is_some() {
        println!("==> cargo-nextest is there");
        return Ok(());
    }
    let mut install = repo.cargo(["install", "--locked", NEXTEST]);
    // Its build is a large part of a cold set-up: leave out that it can update
    // itself, and optimise little, for nothing here is bound by its speed.
    install.args(["--no-default-features", "--features", "default-no-update"]);
    install.args(["--config", "profile.release.opt-level=1"]);
    install.args(["--config", "profile.release.lto=false"]);
    install.args(["--config", "profile.release.codegen-units=16"]);
    install.arg("--target-dir").arg(repo.target.join("tools"));
    step(&format!("cargo install {NEXTEST} (some minutes)"), || {
        quiet(&mut install)
    })
    .with_context(|| {
        format!("no cargo-nextest (needs a network): cargo install --locked {NEXTEST}")
    })
}

/// Builds the program that plays the agent: static, so that it runs as the
/// first process of a VM that has no libraries. With an explicit target the
/// flag does not reach build scripts.
pub(crate) fn build_guest(repo: &Repo, purposes: &[Purpose]) -> Result<()> {
    let mut build = repo.cargo(["build", "--release", "--package", "sandtrace-guest"]);
    build.args(["--target", GUEST_TARGET]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    step("building the lab's guest program", || quiet(&mut build))?;
    for purpose in purposes {
        let directory = repo.target.join(purpose.directory());
        place(&repo.guest(), &directory.join("sandtrace-guest"))?;
    }
    Ok(())
}

/// Copies by a new file: cargo hard-links what it builds, and writing into
/// such a file would change cargo's own copy of it.
fn place(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        let fresh = to.with_extension("new");
        fs::copy(from, &fresh)?;
        fs::rename(&fresh, to)
    };
    copy().with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

fn fetch_kernel(repo: &Repo, purpose: Purpose) -> Result<()> {
    step("building the lab", || {
        let mut build = repo.cargo(["build", "--package", "sandtrace-lab", "--bin", "lab"]);
        quiet(build.args(purpose.profile_flags()))
    })?;
    let lab = repo.target.join(purpose.directory()).join("lab");
    step("the lab's kernel", || streamed(as_root(&lab)?.arg("setup"))).with_context(|| {
        format!(
            "no kernel for the lab's microVM (this needs root and a network): sudo {} setup",
            relative(&lab).display()
        )
    })
}

/// The path as seen from here, where it is below.
fn relative(path: &Path) -> PathBuf {
    std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok())
        .unwrap_or(path)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placing_does_not_write_through_a_hard_link() {
        let directory = std::env::temp_dir().join(format!("xtask-place-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let [ours, cargos, placed] = ["ours", "cargos", "placed"].map(|name| directory.join(name));
        fs::write(&ours, "static").unwrap();
        fs::write(&cargos, "dynamic").unwrap();
        fs::hard_link(&cargos, &placed).unwrap();
        place(&ours, &placed).unwrap();
        assert_eq!(fs::read_to_string(&placed).unwrap(), "static");
        assert_eq!(fs::read_to_string(&cargos).unwrap(), "dynamic");
        fs::remove_dir_all(&directory).unwrap();
    }
}
