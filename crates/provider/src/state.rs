//! Whether a sandbox runs or is paused: by its process, by its cgroup, and by
//! its VMM's API.

use crate::sighting::{Form, Sighting};
use crate::{ProcRoot, cloud_hypervisor, firecracker, qemu};
use sandtrace_event::{RunState, VmmIdentity};
use sandtrace_sys::process::Process;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// A state, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateWord {
    /// The state.
    pub state: RunState,
    /// `process`: it is stopped; `cgroup`: it is frozen;
    /// `firecracker_api`, `cloud_hypervisor_api`, `cloud_hypervisor_events` (the
    /// file of its `--event-monitor`); `threads`: no vCPU of it ran
    /// for five seconds; `none`: nothing speaks against its running.
    pub source: &'static str,
}

/// A guest whose vCPUs did not run for so long is paused: one at rest runs each
/// half a second, for its clocks.
const STILL: Duration = Duration::from_secs(5);

/// What was seen of a VMM that cannot be asked, from one look to the next.
#[derive(Debug, Default)]
pub struct Stillness {
    /// What its vCPUs ran, and since when it is no more.
    turns: Option<(u64, Instant)>,
}

impl Stillness {
    fn is_paused(&mut self, turns: Option<u64>, now: Instant) -> bool {
        match (self.turns, turns) {
            (Some((before, since)), Some(turns)) if before == turns => now - since >= STILL,
            _ => {
                self.turns = turns.map(|turns| (turns, now));
                false
            }
        }
    }
}

/// Where the unified hierarchy is mounted: alone, or beside the older ones.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Looks at a sandbox's process, and asks its API until `deadline` at most.
/// Where the API does not answer, what the kernel says stands alone. `stillness`
/// is what earlier looks saw.
///
/// # Errors
/// When the process is gone.
pub fn run_state(
    proc: &ProcRoot,
    vmm: &VmmIdentity,
    stillness: &mut Stillness,
    deadline: Instant,
) -> io::Result<StateWord> {
    let process = proc.process(vmm.pid)?;
    if process.start_ticks() != vmm.start_ticks.0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    if process.is_stopped()? {
        return Ok(paused_by("process"));
    }
    if is_frozen(&process) {
        return Ok(paused_by("cgroup"));
    }
    let Some(sighting) = Sighting::of(process)? else {
        return Ok(RUNS);
    };
    let process = &sighting.process;
    let word = match &sighting.form {
        Form::Firecracker(arguments) | Form::E2b(_, arguments) => {
            let paused = firecracker::is_paused(process, arguments, deadline);
            paused.map(|paused| (paused, "firecracker_api"))
        }
        Form::CloudHypervisor(arguments) => {
            cloud_hypervisor::is_paused(process, arguments, deadline)
        }
        // QMP takes one client, which is its orchestrator.
        Form::Qemu(_) => {
            let turns = process.thread_turns()?;
            let turns = turns.and_then(|turns| qemu::vcpu_turns(process.pid(), &turns));
            let is_paused = stillness.is_paused(turns, Instant::now());
            return Ok(if is_paused {
                paused_by("threads")
            } else {
                RUNS
            });
        }
        Form::Libkrun(_) | Form::Daytona(_) => return Ok(RUNS),
    };
    Ok(word.map_or(RUNS, |(paused, source)| {
        let running = StateWord {
            state: RunState::Running,
            source,
        };
        if paused { paused_by(source) } else { running }
    }))
}

/// How often those threads ran so far that a pause keeps still, by whoever's word it
/// is: another number later says that the sandbox went on meanwhile. `None` where
/// that is not told.
#[must_use]
pub fn turns_in_pause(proc: &ProcRoot, vmm: &VmmIdentity, source: &str) -> Option<u64> {
    let prefix = match source {
        "process" | "cgroup" => "",
        // The others serve the API that is asked.
        "firecracker_api" => "fc_vcpu",
        "cloud_hypervisor_api" | "cloud_hypervisor_events" => "vcpu",
        _ => return None,
    };
    let process = proc.process(vmm.pid).ok()?;
    let threads = process.thread_turns().ok().flatten()?;
    let still = threads.iter().filter(|it| it.name.starts_with(prefix));
    still.map(|it| it.turns).reduce(|sum, turns| sum + turns)
}

impl StateWord {
    /// Whether this says nothing, because the API that had said `before` was not asked
    /// or did not answer.
    #[must_use]
    pub fn is_silence_after(self, before: &str) -> bool {
        let is_of_api = matches!(
            before,
            "firecracker_api" | "cloud_hypervisor_api" | "cloud_hypervisor_events"
        );
        is_of_api && self == RUNS
    }
}

fn paused_by(source: &'static str) -> StateWord {
    let state = RunState::Paused;
    StateWord { state, source }
}

const RUNS: StateWord = StateWord {
    state: RunState::Running,
    source: "none",
};

/// `frozen 1` in `cgroup.events` of its cgroup (cgroups(7)); `docker pause`
/// does that.
fn is_frozen(process: &Process) -> bool {
    let Some(cgroup) = cgroup_of(process) else {
        return false;
    };
    let events = std::fs::read_to_string(cgroup.join(EVENTS)).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

/// What the kernel says of a cgroup, and tells inotify of.
pub(crate) const EVENTS: &str = "cgroup.events";

/// The directory of its cgroup in the unified hierarchy; `None` for the root.
pub(crate) fn cgroup_of(process: &Process) -> Option<PathBuf> {
    let cgroup = process.cgroup().ok()?;
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
    let relative = Path::new(&cgroup).strip_prefix("/").ok()?;
    if relative.as_os_str().is_empty() || !relative.components().all(inside) {
        return None;
    }
    let dirs = CGROUPS.iter().map(|root| Path::new(root).join(relative));
    dirs.into_iter().find(|dir| dir.join(EVENTS).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn still_for_a_while_is_paused() {
        let mut stillness = Stillness::default();
        let start = Instant::now();
        let mut look = |turns, seconds| {
            let at = start + Duration::from_secs(seconds);
            stillness.is_paused(turns, at)
        };
        assert!(!look(Some(7), 0));
        assert!(!look(Some(7), 4));
        assert!(look(Some(7), 5));
        assert!(!look(Some(8), 6));
        assert!(!look(Some(8), 10));
        assert!(!look(None, 12), "not told");
        assert!(!look(Some(8), 13));
        assert!(look(Some(8), 18));
    }

    #[test]
    fn what_an_api_said_holds_while_it_is_silent() {
        assert!(RUNS.is_silence_after("firecracker_api"));
        assert!(RUNS.is_silence_after("cloud_hypervisor_events"));
        // The kernel is never silent.
        assert!(!RUNS.is_silence_after("cgroup") && !RUNS.is_silence_after("threads"));
        assert!(!paused_by("cgroup").is_silence_after("firecracker_api"));
    }
}
