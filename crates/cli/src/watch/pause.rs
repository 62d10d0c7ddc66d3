//! Whether a scan lay wholly within a pause of its sandbox.

use sandtrace_capture::Observer;
use sandtrace_event::{Observation, Payload, QuiesceMethod, RunState, VmmIdentity};
use sandtrace_provider::{ProcRoot, Stillness, run_state, turns_in_pause};
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
    /// Other processes than the VMM's may write to what is scanned.
    is_shared: bool,
}

/// A pause that held at one moment. One that is equal to it later is the same one:
/// nothing ran in between, as far as the kernel tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Still {
    source: &'static str,
    turns: u64,
}

impl Pause {
    pub(super) fn of(vmm: Option<VmmIdentity>) -> Self {
        Self {
            vmm,
            is_seen: Arc::default(),
            is_shared: false,
        }
    }

    /// The same for an overlay: that one process is stopped says nothing of the
    /// container's others.
    pub(super) fn of_overlay(&self) -> Self {
        Self {
            is_shared: true,
            ..self.clone()
        }
    }

    /// What was found when its state was looked at.
    pub(super) fn set(&self, state: RunState) {
        let is_paused = state == RunState::Paused;
        self.is_seen.store(is_paused, Ordering::Relaxed);
    }

    /// The pause that holds now. Nobody is asked unless it was paused when its state
    /// was looked at last: a sandbox that runs is left alone.
    pub(super) fn holds(&self) -> Option<Still> {
        if !self.is_seen.load(Ordering::Relaxed) {
            return None;
        }
        let (vmm, proc) = (self.vmm.as_ref()?, ProcRoot::host());
        // Who only rests long enough to pass for paused may go on at any moment.
        let mut stillness = Stillness::default();
        let until = Instant::now() + PATIENCE;
        let word = run_state(&proc, vmm, &mut stillness, until).ok()?;
        let is_paused = word.state == RunState::Paused;
        let source = word.source;
        if !is_paused || self.is_shared && source == "process" {
            return None;
        }
        // Without them two pauses with a run between them would pass for one.
        let turns = turns_in_pause(&proc, vmm, source)?;
        Some(Still { source, turns })
    }
}

/// Records of a scan that began in a pause, until it is known whether it ended
/// in it.
pub(super) struct Held {
    began_in: Option<Still>,
    /// `None`: they are let through.
    waiting: Option<Vec<Observation>>,
}

/// A scan with more records is told as one of a sandbox that runs.
const MOST: usize = 4096;

impl Held {
    /// `paused`: where the scan begins in a pause.
    pub(super) fn new(paused: Option<Still>) -> Self {
        Self {
            waiting: paused.is_some().then(Vec::new),
            began_in: paused,
        }
    }

    pub(super) fn add(&mut self, observation: Observation, to: &mut impl Observer) {
        match &mut self.waiting {
            Some(waiting) if waiting.len() < MOST => waiting.push(observation),
            _ => {
                self.end(|| None, to);
                to.observe(observation);
            }
        }
    }

    /// `paused`: asks for the pause that holds now, if it matters.
    pub(super) fn end(&mut self, paused: impl Fn() -> Option<Still>, to: &mut impl Observer) {
        let Some(waiting) = self.waiting.take().filter(|waiting| !waiting.is_empty()) else {
            return;
        };
        let is_paused = paused() == self.began_in;
        for mut observation in waiting {
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

    fn still(turns: u64) -> Option<Still> {
        Some(Still {
            source: "process",
            turns,
        })
    }

    #[track_caller]
    fn check(
        (before, after): (Option<Still>, fn() -> Option<Still>),
        methods: &[QuiesceMethod],
        expected: &[(QuiesceMethod, bool)],
    ) {
        let (mut seen, mut held) = (Seen::default(), Held::new(before));
        for method in methods {
            held.add(change(*method), &mut seen);
        }
        held.end(after, &mut seen);
        assert_eq!(seen.0, expected);
    }

    #[test]
    fn only_a_scan_that_ended_in_its_pause_says_so() {
        let methods = [Live, Snapshot, Moving];
        let as_it_was = methods.map(|method| (method, false));
        let within = [(Paused, true), (Paused, true), (Moving, false)];
        check((still(7), || still(7)), &methods, &within);
        check((still(7), || None), &methods, &as_it_was);
        check((None, || still(7)), &methods, &as_it_was);
        check((still(7), || still(8)), &methods, &as_it_was);
        let many = vec![Live; MOST + 1];
        check(
            (still(7), || still(7)),
            &many,
            &vec![(Live, false); MOST + 1],
        );
    }

    /// That it went on and was stopped again is told, and who else may write is not
    /// forgotten.
    #[test]
    fn a_process_that_ran_between_two_looks_was_in_two_pauses() {
        use rustix::process::{Pid, Signal, kill_process};
        use sandtrace_event::Count;
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let proc = ProcRoot::host();
        let vmm = VmmIdentity {
            name: "sleep".to_owned(),
            pid: sleep.id(),
            start_ticks: Count(proc.process(sleep.id()).unwrap().start_ticks()),
        };
        let pause = Pause::of(Some(vmm));
        pause.set(RunState::Paused);
        let pid = Pid::from_child(&sleep);
        let stop = || {
            kill_process(pid, Signal::STOP).unwrap();
            while !proc.process(sleep.id()).unwrap().is_stopped().unwrap() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Counted a moment after it shows.
            std::thread::sleep(Duration::from_millis(20));
            pause.holds()
        };
        let first = stop();
        assert!(first.is_some());
        assert_eq!(pause.holds(), first);
        assert_eq!(pause.of_overlay().holds(), None);
        kill_process(pid, Signal::CONT).unwrap();
        let second = stop();
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert!(second.is_some() && second != first, "{second:?}");
    }
}
