//! The thread that asks, in turns, whether sandboxes are paused.

use super::known::Name;
use super::sandbox::lock;
use crate::watch::states::Subject;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Sandboxes whose state is followed, and when each is asked next.
pub(super) struct States {
    asked: Mutex<Asked>,
    changed: Condvar,
    /// `None`: nobody is asked.
    interval: Option<Duration>,
}

#[derive(Default)]
struct Asked {
    /// By when each is asked next. Taken out while they are asked.
    subjects: BTreeMap<(Instant, u64), Subject>,
    number: u64,
    over: bool,
}

impl Asked {
    fn add(&mut self, at: Instant, subject: Subject) {
        self.number += 1;
        self.subjects.insert((at, self.number), subject);
    }
}

impl States {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self {
            asked: Mutex::default(),
            changed: Condvar::new(),
            interval,
        }
    }

    pub(super) fn add(&self, subject: Subject) {
        if let Some(interval) = self.interval {
            let first = Instant::now() + interval;
            lock(&self.asked).add(first, subject);
            self.changed.notify_all();
        }
    }

    /// Has the sandbox of this process looked at now.
    pub(super) fn hurry(&self, name: Name) {
        let now = Instant::now();
        let mut asked = lock(&self.asked);
        let of_it = |_: &_, subject: &mut Subject| subject.name() == name;
        let hurried: Vec<_> = asked.subjects.extract_if(.., of_it).collect();
        for (_, subject) in hurried {
            asked.add(now, subject);
        }
        drop(asked);
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        lock(&self.asked).over = true;
        self.changed.notify_all();
    }

    /// Runs until [`Self::stop`].
    pub(super) fn run(&self) {
        while let Some(due) = self.next() {
            for mut subject in due {
                if lock(&self.asked).over {
                    return;
                }
                if subject.look() {
                    self.add(subject);
                }
            }
        }
    }

    fn next(&self) -> Option<Vec<Subject>> {
        let mut asked = lock(&self.asked);
        loop {
            if asked.over {
                return None;
            }
            let now = Instant::now();
            let later = asked.subjects.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut asked.subjects, later);
            if !due.is_empty() {
                return Some(due.into_values().collect());
            }
            let next = asked.subjects.first_key_value().map(|((at, _), _)| *at);
            let wait = next.map_or(Duration::from_secs(60), |at| at - now);
            let waited = self.changed.wait_timeout(asked, wait);
            asked = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::law::Law;
    use crate::watch::outlet::Outlet;
    use crate::watch::pause::Pause;
    use sandtrace_event::{Count, VmmIdentity};
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    fn subject((pid, start_ticks): Name) -> Subject {
        let vmm = VmmIdentity {
            name: "firecracker".to_owned(),
            pid,
            start_ticks: Count(start_ticks),
        };
        let queue = Outlet::Own(sync_channel(1).0, Arc::default());
        let law = Arc::new(Law::new(None, Vec::new()));
        Subject::new(vmm, law, queue, Pause::default())
    }

    #[test]
    fn only_the_process_that_is_meant_is_hurried() {
        let (old, new) = ((7, 100), (7, 900));
        let states = States::new(Some(Duration::from_secs(3600)));
        states.add(subject(old));
        states.add(subject(new));
        states.hurry(new);
        let due = states.next().unwrap();
        let due: Vec<Name> = due.iter().map(Subject::name).collect();
        assert_eq!(due, [new]);
    }
}
