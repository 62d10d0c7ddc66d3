//! The thread that asks, in turns, whether sandboxes are paused.

use super::sandbox::lock;
use crate::watch::states::Subject;
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
    /// Taken out while they are asked.
    subjects: Vec<(Instant, Subject)>,
    over: bool,
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
            lock(&self.asked).subjects.push((first, subject));
            self.changed.notify_all();
        }
    }

    /// Has the sandbox of this process looked at now.
    pub(super) fn hurry(&self, pid: u32) {
        let now = Instant::now();
        let mut asked = lock(&self.asked);
        let subjects = asked.subjects.iter_mut();
        for (at, _) in subjects.filter(|(_, subject)| subject.pid() == pid) {
            *at = now;
        }
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
            let (due, later) = std::mem::take(&mut asked.subjects)
                .into_iter()
                .partition::<Vec<_>, _>(|(at, _)| *at <= now);
            asked.subjects = later;
            if !due.is_empty() {
                return Some(due.into_iter().map(|(_, subject)| subject).collect());
            }
            let next = asked.subjects.iter().map(|(at, _)| *at).min();
            let wait = next.map_or(Duration::from_secs(60), |at| at - now);
            let waited = self.changed.wait_timeout(asked, wait);
            asked = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}
