//! What is known of a trail from elsewhere: keys, sizes, witnesses.

use super::args::VerifyArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::policy_file::{self, LoadedPolicy};
use anyhow::Context as _;
use sandtrace_audit_chain::VerifyOptions;
use sandtrace_audit_chain::note::{Algorithm, VerifierKey};
use sandtrace_audit_chain::witness::WitnessPolicy;
use sandtrace_audit_chain::witness::policy::MAX_POLICY;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

/// Longest file of keys that is read.
const MAX_KEYS: u64 = 64 * 1024;

/// What a trail is held against.
pub(crate) struct Settings {
    /// Hosts' keys that are trusted.
    pub(crate) pins: Vec<VerifierKey>,
    pub(crate) min_size: Option<u64>,
    pub(crate) witnesses: Option<WitnessPolicy>,
    /// Level that must be reached.
    pub(crate) level: u8,
    /// The quorum must be reached, also where that makes no level 3.
    pub(crate) needs_quorum: bool,
    pub(crate) live: bool,
    pub(crate) against: Option<LoadedPolicy>,
    pub(crate) resolvers: Vec<IpAddr>,
    pub(crate) json: bool,
}

impl Settings {
    /// Everything that is read before the trail is.
    pub(crate) fn resolve(args: &VerifyArgs) -> Result<Self, Failure> {
        let mut pins = Vec::new();
        for key in &args.key {
            pins.extend(keys(key)?);
        }
        let policy = args.witness_policy.as_deref();
        let witnesses = policy.map(witness_policy).transpose()?;
        // A log that the policy names is trusted as one given by --key is.
        let logs = witnesses.iter().flat_map(WitnessPolicy::logs);
        pins.extend(logs.map(|log| log.key.clone()));
        let mut unique: Vec<VerifierKey> = Vec::new();
        for key in pins {
            if !unique.contains(&key) {
                unique.push(key);
            }
        }
        let default = match (&witnesses, args.live) {
            (_, true) => 1,
            (Some(_), false) => 3,
            (None, false) => 2,
        };
        let level = args.level.unwrap_or(default);
        if level == 3 && witnesses.is_none() {
            return Err(Failure::new(
                Exit::Usage,
                "--level 3 needs --witness-policy FILE, which says whose cosignatures count",
            ));
        }
        Ok(Self {
            pins: unique,
            min_size: args.min_size,
            needs_quorum: witnesses.is_some() && args.level.is_none_or(|level| level == 3),
            witnesses,
            level,
            live: args.live,
            against: args.against.as_deref().map(policy_file::load).transpose()?,
            resolvers: args.resolver.clone(),
            json: args.json,
        })
    }

    pub(crate) fn options(&self, root_at: Option<u64>) -> VerifyOptions {
        let witnesses = self.witnesses.as_ref();
        VerifyOptions {
            live: self.live,
            threads: None,
            pins: self.pins.clone(),
            witnesses: witnesses.map_or_else(Vec::new, WitnessPolicy::witness_keys),
            root_at,
        }
    }
}

/// A key on the command line, or those in a file.
fn keys(argument: &str) -> Result<Vec<VerifierKey>, Failure> {
    let parsed = argument.parse::<VerifierKey>();
    let key = match parsed {
        Ok(key) => key,
        Err(_) if Path::new(argument).is_file() => return key_file(Path::new(argument)),
        Err(_) if !argument.contains('+') => {
            let message = format!("--key {argument}: there is no such file, and it is no key");
            return Err(Failure::new(Exit::Usage, message));
        }
        Err(error) => return Err(Failure::new(Exit::Usage, format!("--key: {error}"))),
    };
    let key = signs_certificates(key);
    Ok(vec![key.map_err(|message| {
        Failure::new(Exit::Usage, format!("--key: {message}"))
    })?])
}

fn key_file(path: &Path) -> Result<Vec<VerifierKey>, Failure> {
    let text = read(path, MAX_KEYS)
        .with_context(|| format!("read keys from {}", path.display()))
        .or_exit(Exit::Malformed)?;
    let mut keys = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.parse().map_err(|error| format!("{error}"));
        let key = key.and_then(signs_certificates).map_err(|error| {
            let message = format!("{}:{number}: {error}", path.display());
            Failure::new(Exit::Malformed, message)
        })?;
        keys.push(key);
    }
    if keys.is_empty() {
        let message = format!("{}: there is no key in it", path.display());
        return Err(Failure::new(Exit::Malformed, message));
    }
    Ok(keys)
}

fn signs_certificates(key: VerifierKey) -> Result<VerifierKey, String> {
    if key.algorithm() == Algorithm::Ed25519 {
        Ok(key)
    } else {
        Err(format!(
            "{} is a witness's key: --key takes a host's, --witness-policy a file of witnesses",
            key.name()
        ))
    }
}

fn witness_policy(path: &Path) -> Result<WitnessPolicy, Failure> {
    let bound = u64::try_from(MAX_POLICY)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let text = read(path, bound)
        .with_context(|| format!("read witness policy {}", path.display()))
        .or_exit(Exit::Policy)?;
    WitnessPolicy::parse(text)
        .with_context(|| path.display().to_string())
        .or_exit(Exit::Policy)
}

fn read(path: &Path, bound: u64) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bound).read_to_string(&mut text)?;
    Ok(text)
}
