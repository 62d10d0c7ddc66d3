//! SIGHUP: settings and policy are read again. What does not load leaves
//! everything as it is, and the trails say so.

use super::law::Law;
use super::outlet::Outlet;
use crate::config::Options;
use crate::exit::{Failure, OrExit as _};
use crate::policy_file::{self, LoadedPolicy};
use crate::show;
use sandtrace_event::{Digest, PolicyChange};
use std::io::{PipeReader, Read as _};
use std::sync::Arc;

/// Settings in force, and the policy that they name.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) options: Options,
    pub(crate) policy: Option<LoadedPolicy>,
}

/// What came of one order to read again.
pub(crate) struct Reloaded {
    /// As before where they were refused.
    pub(crate) rules: Rules,
    /// The record of it, as every trail concerned gets it.
    pub(crate) change: PolicyChange,
}

impl Rules {
    pub(crate) fn load(options: &Options) -> Result<Self, Failure> {
        let policy = options.policy.as_deref();
        Ok(Self {
            options: options.clone(),
            policy: policy.map(policy_file::load).transpose()?,
        })
    }

    fn settings_digest(&self) -> Option<Digest> {
        self.options.file.as_ref().map(|file| file.digest)
    }

    fn policy_digest(&self) -> Option<Digest> {
        self.policy.as_ref().map(|policy| policy.digest)
    }

    /// Reads everything again and tells people what came of it.
    pub(crate) fn reload(&self) -> Reloaded {
        let read = self.options.again();
        let options = read.as_ref().unwrap_or(&self.options);
        let new_settings = options.file.as_ref().map(|file| file.digest);
        let path = options.policy.clone();
        let loaded = match &read {
            Ok(options) => Self::load(options).map_err(|failure| failure.error),
            Err(failure) => Err(anyhow::anyhow!("{:#}", failure.error)),
        };
        let new_policy = path.as_deref().and_then(policy_file::digest);
        let problem = loaded.as_ref().err().map(|error| format!("{error:#}"));
        // Nothing of what is refused would count after a restart either.
        let kept = match &problem {
            None => options.needs_restart.as_slice(),
            Some(_) => &[],
        };
        tell(problem.as_deref(), kept);
        let change = PolicyChange {
            accepted: problem.is_none(),
            needs_restart: kept.iter().map(|key| (*key).to_owned()).collect(),
            new_policy: loaded.as_ref().map_or(new_policy, Self::policy_digest),
            new_settings,
            old_policy: self.policy_digest(),
            old_settings: self.settings_digest(),
            path: path.map(|path| path.display().to_string()),
            problem,
            providers: None,
        };
        Reloaded {
            rules: loaded.unwrap_or_else(|_| self.clone()),
            change,
        }
    }
}

/// Says what came of it.
fn tell(problem: Option<&str>, kept: &[&str]) {
    let said = match problem {
        Some(why) => format!("the old settings stay in force: {why}"),
        None => "settings and policy were read again and are in force".to_owned(),
    };
    let kept = match kept {
        [] => String::new(),
        kept => format!("; what changed of {} needs a restart", kept.join(", ")),
    };
    show::tell(&format!("SIGHUP: {said}{kept}"));
}

/// Judges the one sandbox of `law` by what is read at each SIGHUP. The thread
/// ends with the program.
pub(crate) fn follow(
    rules: Rules,
    mut hangups: PipeReader,
    law: Arc<Law>,
    queue: Outlet,
) -> Result<(), Failure> {
    let mut rules = rules;
    let work = move || {
        // Several that came at once are one order.
        while hangups.read(&mut [0; 64]).is_ok_and(|read| read > 0) {
            let Reloaded { rules: new, change } = rules.reload();
            law.change(change, new.policy.clone(), &new.options.resolvers, &queue);
            rules = new;
        }
    };
    let thread = std::thread::Builder::new().name("settings".to_owned());
    thread
        .spawn(work)
        .map(drop)
        .or_exit(crate::exit::Exit::Internal)
}
