//! The trails of sandboxes that were watched before this program started.

use super::known::Name;
use super::sandbox::lock;
use crate::exit::Failure;
use crate::watch::opening::TrailPlan;
use crate::watch::settings::Settings;
use sandtrace_audit_chain::{Existing, segments};
use sandtrace_event::PriorTrail;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The newest trail of each process in a directory, listed once, and this
/// program's own: one whose trail failed may be watched again. Listing them at
/// each attach would cost more with every trail that there is.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// Latest time in the name, by what is before that.
    newest: Mutex<BTreeMap<String, u128>>,
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
        let newest = Mutex::new(newest);
        Self { newest }
    }

    /// Notes one that was begun.
    pub(super) fn add(&self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some((process, time)) = name.and_then(parts) {
            lock(&self.newest).insert(process.to_owned(), time);
        }
    }

    /// Forgets those of a process that is gone.
    pub(super) fn forget(&self, id: &str, (pid, start_ticks): Name) {
        lock(&self.newest).remove(&process_part(id, pid, start_ticks));
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
        let newest = *lock(&self.newest).get(process)?;
        let found = path.with_file_name(format!("{process}.{newest}.jsonl"));
        segments::first_of(&found).is_none().then_some(found)
    }
}

/// What the names of all trails of one process begin with: the id is safe in a
/// name, and one that is used again is another process'.
pub(super) fn process_part(id: &str, pid: u32, start_ticks: u64) -> String {
    format!("{id}.{pid}-{start_ticks}")
}

/// That part and the milliseconds behind it.
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
        earlier.add(&dir.path().join("a.7-100.1795488498000.jsonl"));
        let newer = Some("a.7-100.1795488498000.jsonl".to_owned());
        assert_eq!(before("a.7-100.1795488499000.jsonl"), newer);
        earlier.forget("a", (7, 100));
        assert_eq!(before("a.7-100.1795488499000.jsonl"), None);
        assert_eq!(before("a.8-100.1795488499000.jsonl"), None);
        assert_eq!(before("b.7-100.1795488499000.jsonl"), None);
    }
}
