//! Whether a scan lay wholly within a pause of its sandbox.

use sandtrace_capture::Observer;
use sandtrace_event::{Observation, Payload, QuiesceMethod, RunState, VmmIdentity};
use sandtrace_provider::{ProcRoot, Stillness, run_state};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for one VMM's answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// What is known of a sandbox's pauses, shared by who follows its state and who
/// scans its disks.
#[derive(Clone, Default)]
pub(crate) struct Pause {
    vmm: Option<VmmIdentity>,
    is_seen: Arc<AtomicBool>,
}

impl Pause {
    pub(super) fn of(vmm: Option<VmmIdentity>) -> Self {
        Self {
            vmm,
            is_seen: Arc::default(),
        }
    }

    /// What was found when its state was looked at.
    pub(super) fn set(&self, state: RunState) {
        let is_paused = state == RunState::Paused;
        self.is_seen.store(is_paused, Ordering::Relaxed);
    }

    /// Whether it is paused now. Nobody is asked unless it was when its state was
    /// looked at last: a sandbox that runs is left alone.
    pub(super) fn holds(&self) -> bool {
        let Some(vmm) = self.vmm.as_ref() else {
            return false;
        };
        let is_paused = || {
            // Who only rests long enough to pass for paused may go on at any moment.
            let mut stillness = Stillness::default();
            let until = Instant::now() + PATIENCE;
            let word = run_state(&ProcRoot::host(), vmm, &mut stillness, until);
            word.is_ok_and(|word| word.state == RunState::Paused)
        };
        self.is_seen.load(Ordering::Relaxed) && is_paused()
    }
}

/// Records of a scan that began in a pause, until it is known whether it ended
/// in it.
pub(super) struct Held {
    /// `None`: they are let through.
    waiting: Option<Vec<Observation>>,
}

/// A scan with more records is told as one of a sandbox that runs.
const MOST: usize = 4096;

impl Held {
    pub(super) fn new(is_paused: bool) -> Self {
        Self {
            waiting: is_paused.then(Vec::new),
        }
    }

    /// Whether it matters how the scan ended.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    pub(super) fn add(&mut self, observation: Observation, to: &mut impl Observer) {
        match &mut self.waiting {
            Some(waiting) if waiting.len() < MOST => waiting.push(observation),
            _ => {
                self.end(false, to);
                to.observe(observation);
            }
        }
    }

    /// `is_paused`: the sandbox still is.
    pub(super) fn end(&mut self, is_paused: bool, to: &mut impl Observer) {
        for mut observation in self.waiting.take().into_iter().flatten() {
            if let (true, Payload::FilesystemChange(change)) = (is_paused, &mut observation.payload)
                // One that moved all the same keeps its word.
                && change.quiesce_method != QuiesceMethod::Moving
            {
                change.quiesce_method = QuiesceMethod::Paused;
                change.quiesced = true;
            }
            to.observe(observation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_event::{Limits, QuiesceMethod::*};

    #[derive(Default)]
    struct Seen(Vec<(QuiesceMethod, bool)>);

    impl Observer for Seen {
        fn observe(&mut self, observation: Observation) -> Limits {
            let Payload::FilesystemChange(change) = observation.payload else {
                panic!("{observation:?}");
            };
            self.0.push((change.quiesce_method, change.quiesced));
            Limits::default()
        }
    }

    fn change(method: QuiesceMethod) -> Observation {
        let path = "/file".to_owned();
        let json = serde_json::json!({
            "kind": "file", "op": "created", "path": path, "quiesce_method": method,
            "quiesced": false, "source": "block",
        });
        let change: sandtrace_event::FileChange = serde_json::from_value(json).unwrap();
        crate::watch::moment::control(crate::watch::moment::now(), change.into())
    }

    #[track_caller]
    fn check(paused: (bool, bool), methods: &[QuiesceMethod], expected: &[(QuiesceMethod, bool)]) {
        let (mut seen, mut held) = (Seen::default(), Held::new(paused.0));
        for method in methods {
            held.add(change(*method), &mut seen);
        }
        held.end(paused.1, &mut seen);
        assert_eq!(seen.0, expected);
    }

    #[test]
    fn only_a_scan_that_ended_in_the_pause_says_so() {
        let methods = [Live, Snapshot, Moving];
        let as_it_was = methods.map(|method| (method, false));
        let within = [(Paused, true), (Paused, true), (Moving, false)];
        check((true, true), &methods, &within);
        check((true, false), &methods, &as_it_was);
        check((false, true), &methods, &as_it_was);
        let many = vec![Live; MOST + 1];
        check((true, true), &many, &vec![(Live, false); MOST + 1]);
    }
}
