//! From a collector to the trail: every observation is judged once, on its way.

use super::outlet::Outlet;
use super::trail::Entry;
use sandtrace_capture::Observer;
use sandtrace_event::{Judged, Limits, Observation};
use sandtrace_policy::Engine;

/// One collector's way into the trail.
pub(crate) struct Judge {
    /// `None`: no policy was given, nothing is judged.
    pub(crate) engine: Option<Engine>,
    pub(crate) queue: Outlet,
}

impl Observer for Judge {
    fn observe(&mut self, observation: Observation) -> Limits {
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
}
