//! Reading a policy from disk, and `sandtrace policy check`.

use crate::args::PolicyCheckArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use sandtrace_event::Digest;
use sandtrace_policy::{MAX_MANIFEST_BYTES, Policy};
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A policy that loaded whole, with the digest of the bytes it came from.
#[derive(Clone)]
pub(crate) struct LoadedPolicy {
    pub(crate) digest: Digest,
    pub(crate) path: PathBuf,
    pub(crate) policy: Arc<Policy>,
}

/// Reads and compiles a manifest.
pub(crate) fn load(path: &Path) -> Result<LoadedPolicy, Failure> {
    let bytes = read(path)
        .with_context(|| format!("read policy {}", path.display()))
        .or_exit(Exit::Policy)?;
    let policy = Policy::parse(&path.display().to_string(), &bytes).or_exit(Exit::Policy)?;
    Ok(LoadedPolicy {
        digest: Digest(Sha256::digest(&bytes).into()),
        path: path.to_owned(),
        policy: Arc::new(policy),
    })
}

/// Digest of a policy that may not load; `None` where it cannot be read.
pub(crate) fn digest(path: &Path) -> Option<Digest> {
    let bytes = read(path).ok()?;
    Some(Digest(Sha256::digest(&bytes).into()))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than the parser takes, so that it is the parser who refuses.
    let bound = MAX_MANIFEST_BYTES as u64 + 1;
    std::fs::File::open(path)?
        .take(bound)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `sandtrace policy check FILE`.
pub(crate) fn check(args: &PolicyCheckArgs) -> Result<Exit, Failure> {
    let loaded = load(&args.file)?;
    describe(&loaded)
        .context("write to standard output")
        .or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

fn describe(loaded: &LoadedPolicy) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}: valid, {}", loaded.path.display(), loaded.digest)?;
    for rule in loaded.policy.rules() {
        writeln!(
            out,
            "  {:<24} {:<16} {}",
            rule.id, rule.rule_type, rule.description
        )?;
    }
    for resolver in loaded.policy.resolvers() {
        writeln!(out, "  accepts DNS answers from {resolver}")?;
    }
    Ok(())
}
