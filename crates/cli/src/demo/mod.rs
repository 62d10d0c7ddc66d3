//! `sandtrace demo`: a scripted agent in a real sandbox, watched for real.
//!
//! Nothing here makes an event: the lab runs the sandbox, discovery finds it
//! as it would find any other, and a session watches it.

mod narrate;
mod stage;
mod tamper;

use crate::args::{DemoArgs, DemoScenario};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::verify::VerifyArgs;
use crate::watch::settings::{Signing, random_nonce};
use crate::{keys, policy_file, verify, watch};
use anyhow::Context as _;
use narrate::Narrator;
use sandtrace_lab::Scenario;
use stage::Stage;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The seed's manifest, which both scenarios are judged by.
const POLICY: &str = include_str!("../../../../policies/stripe-exfil.yaml");

/// Runs the scenario, tells what happened, verifies, and says what to try next.
pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    if args.scenario == DemoScenario::Tamper {
        return tamper::run(args);
    }
    let interrupted = watch::interruptions()?;
    let keep = Keep::new(args.keep.as_deref())?;
    // A key of its own: a demo leaves nothing behind elsewhere.
    let (host_key, _) = keys::loaded_or_made(&keep.path("state"))?;
    let public_key = host_key.verifier().to_string();
    let signing = Signing {
        host_key: Some(host_key),
        ..Signing::default()
    };
    let stage = Stage::set(args.sandbox, signing)?;
    let policy_path = keep.path("policy.yaml");
    keep_policy(&policy_path)
        .with_context(|| format!("write {}", policy_path.display()))
        .or_exit(Exit::CannotCreate)?;
    let policy = policy_file::load(&policy_path)?;
    let narrator = Narrator;
    let mut exit = Exit::Success;
    for (scenario, name) in runs(args.scenario) {
        narrator.introduce(*scenario)?;
        let trail = keep.path(name);
        let run = stage.play(*scenario, &policy, &trail, interrupted.as_fd(), &narrator)?;
        narrator.sum_up(&run.finished, &trail)?;
        let command = format!("sandtrace verify {} --key {public_key}", trail.display());
        narrator.heading(&command)?;
        let verified = verify::run(&VerifyArgs {
            trail,
            key: vec![public_key.clone()],
            ..VerifyArgs::default()
        })?;
        if verified != Exit::Success {
            exit = verified;
        }
        if run.interrupted {
            break;
        }
    }
    let trails: Vec<_> = runs(args.scenario)
        .iter()
        .map(|(_, name)| keep.path(name))
        .collect();
    let written: Vec<_> = trails.into_iter().filter(|trail| trail.exists()).collect();
    narrator.suggest(&written, &policy_path)?;
    Ok(exit)
}

/// Writes the demo's policy; somebody else's file of that name is left as it is.
fn keep_policy(path: &Path) -> io::Result<()> {
    match std::fs::read(path) {
        Ok(kept) if kept == POLICY.as_bytes() => Ok(()),
        _ => File::create_new(path)?.write_all(POLICY.as_bytes()),
    }
}

fn runs(scenario: DemoScenario) -> &'static [(Scenario, &'static str)] {
    match scenario {
        DemoScenario::StripeExfil => &[(Scenario::StripeExfil, "trace.jsonl")],
        DemoScenario::Persist => &[
            (Scenario::PersistPlant, "run-1.jsonl"),
            (Scenario::PersistAct, "run-2.jsonl"),
        ],
        // Nobody has to run for it.
        DemoScenario::Tamper => &[],
    }
}

/// Where trails and the policy go.
struct Keep {
    dir: PathBuf,
}

impl Keep {
    /// A directory that is kept either way: the commands to try next need it.
    fn new(chosen: Option<&Path>) -> Result<Self, Failure> {
        let (dir, made) = match chosen {
            Some(dir) => (dir.to_owned(), std::fs::create_dir_all(dir)),
            None => {
                // Where everybody may write, it must be new and our own.
                let name = format!("sandtrace-demo-{:016x}", random_nonce()?);
                let dir = std::env::temp_dir().join(name);
                let made = DirBuilder::new().mode(0o700).create(&dir);
                (dir, made)
            }
        };
        made.with_context(|| format!("make directory {}", dir.display()))
            .or_exit(Exit::CannotCreate)?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
