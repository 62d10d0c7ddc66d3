//! From a collector to the trail: every observation is judged once, on its way.

use super::law::Law;
use super::outlet::Outlet;
use super::trail::Entry;
use sandtrace_capture::Observer;
use sandtrace_event::{Judged, Limits, Observation};
use sandtrace_policy::Engine;
use std::sync::Arc;

/// One collector's way into the trail.
pub(crate) struct Judge {
    law: Arc<Law>,
    /// `None`: there is no policy, nothing is judged.
    engine: Option<Engine>,
    /// Which of the law's policies the engine is of.
    edition: u64,
    pub(crate) queue: Outlet,
}

impl Judge {
    pub(crate) fn new(law: &Arc<Law>, queue: Outlet) -> Self {
        let in_force = law.in_force();
        Self {
            engine: in_force.engine(),
            edition: in_force.edition(),
            law: Arc::clone(law),
            queue,
        }
    }
}

impl Observer for Judge {
    fn observe(&mut self, observation: Observation) -> Limits {
        // Whoever waits does so before, not while the policy cannot be replaced.
        self.queue.await_room();
        let in_force = self.law.in_force();
        if in_force.edition() != self.edition {
            self.edition = in_force.edition();
            self.engine = in_force.engine();
        }
        let judgement = self
            .engine
            .as_mut()
            .map(|engine| engine.judge(&observation));
        let (verdict, limits) = judgement.map_or((None, Limits::default()), |judged| {
            (judged.verdict, judged.limits)
        });
        // A trail that can take no more has ended its thread, which wakes
        // the supervisor; there is nobody else to tell.
        let _trail_failed = self.queue.send(Entry::Event(Box::new(Judged {
            observation,
            verdict,
        })));
        limits
    }

    fn room(&self) -> usize {
        self.queue.room()
    }
}
