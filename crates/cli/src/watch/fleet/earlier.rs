//! The trails of sandboxes that were watched before this program started.

use crate::exit::Failure;
use crate::watch::opening::TrailPlan;
use crate::watch::settings::Settings;
use sandtrace_audit_chain::{Existing, segments};
use sandtrace_event::PriorTrail;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest trail of each process in a directory, listed once: later ones
/// are this program's own, and it watches no process twice. Listing them at
/// each attach would cost more with every trail that there is.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// Latest time in the name, by what is before that.
    newest: BTreeMap<String, u128>,
}

impl Earlier {
    /// A directory that cannot be listed holds nothing to go on with.
    pub(super) fn list(dir: &Path) -> Self {
        let mut newest = BTreeMap::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some((process, time)) = name.to_str().and_then(parts) else {
                continue;
            };
            let latest = newest.entry(process.to_owned()).or_insert(time);
            *latest = time.max(*latest);
        }
        Self { newest }
    }

    /// The plan for a sandbox's trail: the name that its settings give it, or
    /// the one of before that stopped without its end.
    pub(super) fn plan(&self, settings: &Settings) -> Result<TrailPlan, Failure> {
        let mut plan = settings.trail_plan();
        let Some(before) = self.before(&settings.trail) else {
            return Ok(plan);
        };
        match Existing::open(&before) {
            // Opened again at once, under the same lock; nobody else writes here.
            Ok(Existing::Resumable(_)) => plan.path = before,
            Ok(Existing::Broken(prior)) => plan.previous = Some(prior),
            Err(error) => plan.previous = unreadable(&before, &error),
        }
        Ok(plan)
    }

    /// The trail of the same process with the latest time in its name.
    fn before(&self, path: &Path) -> Option<PathBuf> {
        let (process, _) = parts(path.file_name()?.to_str()?)?;
        let newest = self.newest.get(process)?;
        let found = path.with_file_name(format!("{process}.{newest}.jsonl"));
        segments::first_of(&found).is_none().then_some(found)
    }
}

/// `<sandbox id>.<pid>-<start ticks>` and the milliseconds behind it.
fn parts(name: &str) -> Option<(&str, u128)> {
    let (process, time) = name.strip_suffix(".jsonl")?.rsplit_once('.')?;
    Some((process, time.parse().ok()?))
}

/// A trail that cannot be looked at is still referred to.
fn unreadable(path: &Path, error: &dyn std::error::Error) -> Option<PriorTrail> {
    Some(PriorTrail {
        detail: error.to_string(),
        path: path.display().to_string(),
        reason: sandtrace_event::BreakReason::Damaged,
        record_hash: None,
        size: sandtrace_event::Count(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_trail_of_each_process_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "a.7-100.1795488426100.jsonl",
            "a.7-100.1795488427200.jsonl",
            "a.7-101.1795488429000.jsonl",
            "a.7-100.1795488428200.jsonl.checkpoint",
            "a.7-100.soon.jsonl",
        ];
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let earlier = Earlier::list(dir.path());
        let before = |name: &str| {
            let found = earlier.before(&dir.path().join(name))?;
            Some(found.file_name()?.to_str()?.to_owned())
        };
        let newest = Some("a.7-100.1795488427200.jsonl".to_owned());
        assert_eq!(before("a.7-100.1795488499000.jsonl"), newest);
        assert_eq!(before("a.8-100.1795488499000.jsonl"), None);
        assert_eq!(before("b.7-100.1795488499000.jsonl"), None);
    }
}
