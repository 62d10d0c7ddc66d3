//! Whether sandboxes are paused: asked now and then, recorded when it changes.

use super::law::Law;
use super::moment::{control, now};
use super::outlet::Outlet;
use super::pause::{PATIENCE, Pause};
use super::settings::Settings;
use super::trail::Entry;
use crate::config::Options;
use crate::exit::{Exit, Failure, OrExit as _};
use sandtrace_event::{Judged, RunState, SandboxState, VmmIdentity, WallTime};
use sandtrace_provider::{ProcRoot, StateWord, Stillness, run_state};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One sandbox's state as far as it is known.
pub(super) struct Subject {
    vmm: VmmIdentity,
    law: Arc<Law>,
    queue: Outlet,
    /// Who scans its disks knows of it by this.
    pause: Pause,
    /// What was recorded last; at first it is taken for running.
    state: RunState,
    /// Whose word that was.
    by: &'static str,
    /// When that was seen to hold last.
    seen: Option<WallTime>,
    stillness: Stillness,
}

impl Subject {
    pub(super) fn new(vmm: VmmIdentity, law: Arc<Law>, queue: Outlet, pause: Pause) -> Self {
        Self {
            vmm,
            law,
            queue,
            pause,
            state: RunState::Running,
            by: "none",
            seen: None,
            stillness: Stillness::default(),
        }
    }

    /// Its process, by pid and start time: a pid is used again.
    pub(super) fn name(&self) -> (u32, u64) {
        (self.vmm.pid, self.vmm.start_ticks.0)
    }

    /// Looks once; its API has `patience` to answer. Without any it is not asked.
    pub(super) fn look(&mut self, patience: Duration) -> Look {
        let deadline = Instant::now() + patience;
        let stillness = &mut self.stillness;
        let Ok(word) = run_state(&ProcRoot::host(), &self.vmm, stillness, deadline) else {
            return Look::Gone;
        };
        let is_silent = !patience.is_zero() && Instant::now() >= deadline;
        let looked = if is_silent { Look::Silent } else { Look::Done };
        if word.is_silence_after(self.by) {
            return looked;
        }
        let StateWord { state, source } = word;
        let at = now();
        self.pause.set(state);
        if state != self.state {
            let changed = SandboxState {
                after: self.seen,
                source: source.to_owned(),
                state,
            };
            let _held = self.law.in_force();
            // A trail that failed was told of when it did.
            let _failed = self.queue.send(Entry::Event(Box::new(Judged {
                observation: control(at, changed.into()),
                verdict: None,
            })));
        }
        (self.state, self.by) = (state, source);
        self.seen = Some(at.wall);
        looked
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The process is gone.
    Gone,
    Done,
    /// The API used up its time.
    Silent,
}

/// Follows the one sandbox of `settings`, if it has a process. The thread ends
/// with that.
pub(super) fn follow(
    settings: &Settings,
    options: &Options,
    law: &Arc<Law>,
    queue: &Outlet,
) -> Result<(), Failure> {
    let (Some(interval), Some(vmm)) = (options.state_interval, settings.target.vmm.clone()) else {
        return Ok(());
    };
    let mut subject = Subject::new(vmm, Arc::clone(law), queue.clone(), settings.pause.clone());
    let work = move || {
        while subject.look(PATIENCE) != Look::Gone {
            std::thread::sleep(interval);
        }
    };
    let thread = std::thread::Builder::new().name("states".to_owned());
    thread.spawn(work).map(drop).or_exit(Exit::Internal)
}
