//! The thread that reports the system calls of all VMMs.

use super::sandbox::lock;
use crate::watch::judge::Judge;
use crate::watch::moment::now;
use crate::watch::outlet::Load;
use sandtrace_capture::syscall::SyscallCollector;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time between two looks for rare calls: a sandbox's share of the kernel's
/// ring is for as long.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// A VMM whose calls are reported; `None` once it is let go.
pub(super) type SharedCalls = Arc<Mutex<Option<VmmCalls>>>;

/// One VMM's collector and its way into the trail.
pub(super) struct VmmCalls {
    collector: SyscallCollector,
    judge: Judge,
    load: Arc<Load>,
}

impl VmmCalls {
    pub(super) fn new(collector: SyscallCollector, judge: Judge, load: Arc<Load>) -> SharedCalls {
        Arc::new(Mutex::new(Some(Self {
            collector,
            judge,
            load,
        })))
    }

    /// What waits meanwhile is bounded, and counted where it is too much.
    fn report(&mut self, interval_ends: bool) {
        if self.load.is_full() {
            return;
        }
        if interval_ends {
            self.collector.end_interval(now(), &mut self.judge);
        } else {
            self.collector.poll(now(), &mut self.judge);
        }
    }
}

/// Reports the last interval of a sandbox that is let go.
pub(super) fn finish(calls: &SharedCalls) {
    let last = lock(calls).take();
    if let Some(mut calls) = last {
        calls.collector.finish(now(), &mut calls.judge);
    }
}

/// All VMMs whose calls are reported.
pub(super) struct Calls {
    watched: Mutex<Vec<SharedCalls>>,
    interval: Duration,
    over: AtomicBool,
}

impl Calls {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            watched: Mutex::default(),
            interval,
            over: AtomicBool::new(false),
        }
    }

    pub(super) fn add(&self, calls: SharedCalls) {
        lock(&self.watched).push(calls);
    }

    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Runs until [`Self::stop`].
    pub(super) fn run(&self) {
        let mut due = Instant::now() + self.interval;
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(POLL_EVERY);
            let interval_ends = Instant::now() >= due;
            if interval_ends {
                due = Instant::now() + self.interval;
            }
            // Others may be added meanwhile.
            let watched = lock(&self.watched).clone();
            for calls in &watched {
                if let Some(calls) = lock(calls).as_mut() {
                    calls.report(interval_ends);
                }
            }
            lock(&self.watched).retain(|calls| lock(calls).is_some());
        }
    }
}
