//! The trail of a sandbox that was watched before this program started.

use crate::exit::Failure;
use crate::watch::opening::TrailPlan;
use crate::watch::settings::Settings;
use sandtrace_audit_chain::{Existing, segments};
use sandtrace_event::PriorTrail;
use std::path::{Path, PathBuf};

/// The plan for a sandbox's trail: the name that its settings give it, or the
/// one of before that stopped without its end.
pub(super) fn plan(settings: &Settings) -> Result<TrailPlan, Failure> {
    let mut plan = settings.trail_plan();
    let Some(before) = newest_before(&settings.trail) else {
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
fn newest_before(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let prefix = name.strip_suffix(".jsonl")?.rsplit_once('.')?.0;
    let prefix = format!("{prefix}.");
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    let times = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let time = name.strip_prefix(&prefix)?.strip_suffix(".jsonl")?;
        time.parse::<u128>().ok()
    });
    let newest = times.max()?;
    let found = path.with_file_name(format!("{prefix}{newest}.jsonl"));
    segments::first_of(&found).is_none().then_some(found)
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
