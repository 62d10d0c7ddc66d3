//! Where things are: the checkout, the target directory, programs, the user.

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The platform that the lab's microVM and its guest program are built for.
pub(crate) const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// This checkout.
pub(crate) struct Repo {
    /// Directory of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
    /// What `cargo metadata` says of the workspace on Linux.
    pub(crate) metadata: Value,
}

impl Repo {
    /// Asks cargo about the workspace that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        let output = Command::new(cargo())
            .args(["metadata", "--format-version=1", "--locked"])
            .args(["--filter-platform", GUEST_TARGET])
            .args(["--manifest-path", manifest])
            .output()
            .context("running cargo metadata")?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(anyhow!("cargo metadata --locked: {}", why.trim()));
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("reading cargo metadata's answer")?;
        let directory = |key: &str| {
            metadata
                .get(key)
                .and_then(Value::as_str)
                .map(PathBuf::from)
                .with_context(|| format!("cargo metadata does not say {key}"))
        };
        Ok(Self {
            root: directory("workspace_root")?,
            target: directory("target_directory")?,
            metadata,
        })
    }

    /// A cargo command in this checkout.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(cargo());
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// The static guest program that set-up builds.
    pub(crate) fn guest(&self) -> PathBuf {
        self.target
            .join(GUEST_TARGET)
            .join("release/sandtrace-guest")
    }

    /// Captures, images and vectors that others published; beside the checkout.
    pub(crate) fn corpora(&self) -> PathBuf {
        env::var_os("SANDTRACE_CORPORA")
            .map_or_else(|| self.root.join("../shared/corpora"), PathBuf::from)
    }
}

/// The cargo that runs this program.
fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|metadata| metadata.uid() == 0)
}

/// Whether a continuous-integration job runs this.
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some()
}

/// The program of this name on the search path, or in the directories of the
/// system's administrator that a plain user's path leaves out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// `program` run as root: as it is for root, else through sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find_program("sudo").context("this needs root, and there is no sudo")?;
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}
