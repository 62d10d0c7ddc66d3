//! Finding sandboxes: all of them, or one by its id.

use crate::candidate::{Candidate, scan};
use crate::claims::quoted;
use crate::inspect::{Wanted, inspect};
use crate::{FindError, Found, ProcRoot, Target, is_valid_id};

/// What there is on a host.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Every sandbox, in ascending order of pids.
    pub targets: Vec<Target>,
    /// Sandboxes that could not be looked at, and ids that are not unique.
    pub problems: Vec<Problem>,
}

/// Something that discovery could not do.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A sandbox that could not be looked at, or an id that is not unique.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A sandbox whose own id cannot be one here.
    #[error("process {pid} calls itself {}, which cannot be a sandbox id; it is listed as {id}", quoted(.claimed))]
    UnusableId {
        /// The process.
        pid: u32,
        /// What it calls itself.
        claimed: String,
        /// What it is called here.
        id: String,
    },
}

/// Every Firecracker and QEMU process of the host.
///
/// Asks each Firecracker's API, which serves its main loop: not to be done
/// every second.
#[must_use]
pub fn discover(proc: &ProcRoot) -> Discovery {
    let mut discovery = Discovery::default();
    let candidates = match scan(proc) {
        Ok(candidates) => candidates,
        Err(source) => {
            discovery.problems.push(FindError::List { source }.into());
            return discovery;
        }
    };
    for candidate in &candidates {
        let pids = pids_of(&candidates, &candidate.id);
        if pids.len() > 1 && pids.first() == Some(&candidate.process.pid()) {
            let id = candidate.id.clone();
            discovery
                .problems
                .push(FindError::Ambiguous { id, pids }.into());
        }
        if let Some(claimed) = candidate.unusable_id.clone() {
            discovery.problems.push(Problem::UnusableId {
                pid: candidate.process.pid(),
                claimed,
                id: candidate.id.clone(),
            });
        }
        match describe(proc, candidate, Wanted::ALL) {
            Ok(target) => discovery.targets.push(target),
            Err(error) => discovery.problems.push(error.into()),
        }
    }
    discovery
}

/// The sandbox of this id on this host.
///
/// # Errors
/// When the id is malformed, unknown (the error lists what there is) or
/// ambiguous, or the sandbox ends meanwhile.
pub fn find(id: &str) -> Result<Target, FindError> {
    find_in(&ProcRoot::host(), id)
}

/// As [`find`], among the processes of `proc`.
///
/// # Errors
/// As for [`find`].
pub fn find_in(proc: &ProcRoot, id: &str) -> Result<Target, FindError> {
    let mut candidates = scan(proc).map_err(|source| FindError::List { source })?;
    let pids = pids_of(&candidates, id);
    match pids.as_slice() {
        &[pid] => {
            candidates.retain(|candidate| candidate.process.pid() == pid);
            let only = candidates.first().ok_or_else(|| unknown(id, &[]))?;
            describe(proc, only, Wanted::ALL)
        }
        [] if is_valid_id(id) => Err(unknown(id, &candidates)),
        [] => Err(FindError::InvalidId { id: id.to_owned() }),
        _ => Err(FindError::Ambiguous {
            id: id.to_owned(),
            pids,
        }),
    }
}

fn pids_of(candidates: &[Candidate], id: &str) -> Vec<u32> {
    let matching = candidates.iter().filter(|it| it.answers_to(id));
    matching.map(|it| it.process.pid()).collect()
}

fn unknown(id: &str, candidates: &[Candidate]) -> FindError {
    let found: Vec<Found> = candidates.iter().map(Candidate::found).collect();
    FindError::Unknown {
        id: id.to_owned(),
        found,
    }
}

/// Everything about one VMM.
pub(crate) fn describe(
    proc: &ProcRoot,
    candidate: &Candidate,
    wanted: Wanted,
) -> Result<Target, FindError> {
    let claims = candidate.claims();
    let seen = inspect(proc, &candidate.process, &claims, wanted);
    // What was read through the process' own directory is its own; its start
    // time is compared once more for what was looked up by its pid.
    let process = &candidate.process;
    let now = proc.process(process.pid());
    if !now.is_ok_and(|now| now.start_ticks() == process.start_ticks()) {
        return Err(FindError::Ended {
            id: candidate.id.clone(),
            pid: process.pid(),
        });
    }
    let mut coverage = claims.coverage;
    coverage.extend(seen.coverage);
    Ok(Target {
        sandbox_id: candidate.id.clone(),
        agent_id: claims.agent_id,
        provider: candidate.kind(),
        vmm: Some(candidate.identity()),
        taps: seen.taps,
        disks: seen.disks,
        overlay: None,
        coverage,
        netns_path: seen.netns_path,
    })
}
