//! `sandtrace witness`: cosigns the checkpoints of trails (docs/witness.md).

mod address;
mod args;
mod client;
mod http;
mod serve;

pub(crate) use args::WitnessCommand;
pub(crate) use client::{TrailHandle, WitnessTarget, Witnesses};

use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use args::WitnessServeArgs;
use rustix::rand::{GetRandomFlags, getrandom};
use sandtrace_audit_chain::key_file::{self, KeyFileError};
use sandtrace_audit_chain::note::{Algorithm, SigningKey, VerifierKey};
use sandtrace_audit_chain::witness::{Store, Witness, WitnessConfig, WitnessPolicy};
use std::fs;
use std::io::Write as _;
use std::path::Path;

pub(crate) fn run(command: &WitnessCommand) -> Result<Exit, Failure> {
    match command {
        WitnessCommand::Serve(args) => serve(args),
    }
}

/// Serves until somebody interrupts.
fn serve(args: &WitnessServeArgs) -> Result<Exit, Failure> {
    let mut hosts = Vec::new();
    for host in &args.host_key {
        hosts.extend(verifier_keys(host)?);
    }
    let mut logs = Vec::new();
    for log in &args.log {
        logs.extend(verifier_keys(log)?);
    }
    if let Some(path) = &args.policy {
        let policy = load_policy(path)?;
        logs.extend(policy.logs().iter().map(|log| log.key.clone()));
    }
    if hosts.is_empty() && logs.is_empty() {
        let why = "name whose logs to cosign: --host-key, --log, or --policy with logs in it";
        return Err(Failure::new(Exit::Usage, why));
    }
    for key in hosts.iter().chain(&logs) {
        if key.algorithm() != Algorithm::Ed25519 {
            let why = format!(
                "{} is a witness's key: name a host's or a log's",
                key.name()
            );
            return Err(Failure::new(Exit::Usage, why));
        }
    }
    let store = Store::open(&args.state).or_exit(Exit::CannotCreate)?;
    let default = args.state.join("witness.key");
    let key_path = args.key.as_deref().unwrap_or(&default);
    let config = WitnessConfig {
        key: signing_key(key_path, args.name.as_deref())?,
        hosts,
        logs,
        max_logs: args.max_logs,
    };
    let vkey = config.key.verifier().to_string();
    let witness = Witness::new(config, store).or_exit(Exit::CannotCreate)?;
    let server = serve::Server::bind(&args.listen, witness)?;
    writeln!(anstream::stdout(), "{vkey}")
        .context("write to standard output")
        .or_exit(Exit::Io)?;
    server.run(&crate::watch::interruptions()?)
}

/// The witness's key, which is made on first use.
fn signing_key(path: &Path, name: Option<&str>) -> Result<SigningKey, Failure> {
    let exit = |error: &KeyFileError| match error {
        KeyFileError::Exposed { .. } => Exit::NoPermission,
        KeyFileError::Key { .. } | KeyFileError::Missing { .. } => Exit::Malformed,
        KeyFileError::Exists { .. } | KeyFileError::Io { .. } => Exit::CannotCreate,
    };
    let failure = |error: KeyFileError| Failure {
        exit: exit(&error),
        error: error.into(),
    };
    let key = match key_file::load(path) {
        Err(KeyFileError::Missing { .. }) => {
            let key = new_key(name)?;
            key_file::create(path, &key).map_err(failure)?;
            show::tell(&format!("sandtrace: new key {}", path.display()));
            key
        }
        loaded => loaded.map_err(failure)?,
    };
    let verifier = key.verifier();
    if verifier.algorithm() != Algorithm::CosignatureV1 {
        let why = format!("key {} is no witness's key", path.display());
        return Err(Failure::new(Exit::Malformed, why));
    }
    if name.is_some_and(|name| name != verifier.name()) {
        let named = verifier.name();
        let why = format!(
            "key {} has the name {named}, not that of --name",
            path.display()
        );
        return Err(Failure::new(Exit::Usage, why));
    }
    Ok(key)
}

fn new_key(name: Option<&str>) -> Result<SigningKey, Failure> {
    let host = rustix::system::uname();
    let default = format!("{}/witness", host.nodename().to_string_lossy());
    let mut secret = [0; 32];
    getrandom(&mut secret, GetRandomFlags::empty())
        .context("get random bytes for a key")
        .or_exit(Exit::Internal)?;
    let name = name.unwrap_or(&default);
    SigningKey::new(name, Algorithm::CosignatureV1, &secret)
        .with_context(|| format!("name the witness {name:?}"))
        .or_exit(Exit::Usage)
}

/// A verifier key, or a file with one a line.
pub(crate) fn verifier_keys(key_or_file: &str) -> Result<Vec<VerifierKey>, Failure> {
    if let Ok(key) = key_or_file.parse() {
        return Ok(vec![key]);
    }
    let text = fs::read_to_string(key_or_file);
    let text = text
        .with_context(|| format!("{key_or_file} is neither a verifier key nor a file with one"))
        .or_exit(Exit::Usage)?;
    let lines = text.lines().map(str::trim);
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Result<Vec<_>, _> = keys.map(str::parse).collect();
    keys.with_context(|| format!("verifier keys in {key_or_file}"))
        .or_exit(Exit::Usage)
}

/// A trust policy (c2sp.org/tlog-policy).
pub(crate) fn load_policy(path: &Path) -> Result<WitnessPolicy, Failure> {
    let text = fs::read(path)
        .with_context(|| format!("read witness policy {}", path.display()))
        .or_exit(Exit::Policy)?;
    WitnessPolicy::parse(text)
        .with_context(|| format!("witness policy {}", path.display()))
        .or_exit(Exit::Policy)
}
