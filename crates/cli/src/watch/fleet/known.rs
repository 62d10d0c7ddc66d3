//! Which processes were seen, and when one that could not be watched is tried
//! again.

use super::sandbox::lock;
use sandtrace_provider::Sighting;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// A process for good: pid and start time.
pub(super) type Name = (u32, u64);

/// That of a sandbox's.
pub(super) fn name_of(sighting: &Sighting) -> Name {
    (sighting.pid(), sighting.start_ticks())
}

/// Processes that are sandboxes.
#[derive(Default)]
pub(super) struct Known(Mutex<BTreeMap<Name, Case>>);

/// What is known of one.
#[derive(Default)]
struct Case {
    failures: u32,
    /// What was said of the last failure.
    said: String,
    /// When it may be tried again; `None` while somebody has it in hand.
    again: Option<Instant>,
}

impl Known {
    /// Whether nobody has it in hand, and no pause holds it; whoever asks has it then.
    pub(super) fn is_due(&self, name: Name, now: Instant) -> bool {
        let mut known = lock(&self.0);
        let Some(case) = known.get_mut(&name) else {
            known.insert(name, Case::default());
            return true;
        };
        let due = case.again.is_some_and(|again| again <= now);
        if due {
            case.again = None;
        }
        due
    }

    /// Lets it be found again at once, where there was no room for it.
    pub(super) fn forget(&self, name: Name) {
        lock(&self.0).remove(&name);
    }

    /// Lets it be tried again after a pause. Whether `why` is worth saying:
    /// it was not said of it before.
    pub(super) fn failed(&self, name: Name, why: &str, now: Instant) -> bool {
        let mut known = lock(&self.0);
        let case = known.entry(name).or_default();
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(case.failures.min(16));
        case.failures = case.failures.saturating_add(1);
        case.again = Some(now + pause.min(LONGEST_PAUSE));
        let new = case.said != why;
        why.clone_into(&mut case.said);
        new
    }

    pub(super) fn keep(&self, keep: impl Fn(&Name) -> bool) {
        lock(&self.0).retain(|name, _| keep(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fails_is_tried_again_ever_more_seldom_and_named_once() {
        let (known, name) = (Known::default(), (7, 100));
        let mut now = Instant::now();
        assert!(known.is_due(name, now));
        assert!(!known.is_due(name, now), "somebody has it");
        for (failure, pause) in [1, 2, 4, 8, 16, 32, 64, 64, 64].into_iter().enumerate() {
            assert_eq!(known.failed(name, "no disk", now), failure == 0);
            let pause = Duration::from_secs(pause);
            assert!(!known.is_due(name, now + pause - Duration::from_millis(1)));
            now += pause;
            assert!(known.is_due(name, now));
            assert!(!known.is_due(name, now));
        }
        assert!(known.failed(name, "no memory", now));
        known.keep(|_| false);
        assert!(known.is_due(name, now));
        known.forget(name);
        assert!(known.is_due(name, now));
    }
}
