//! Sandboxes as they arrive: by the kernel's word when a program starts, and
//! by looking at all processes and at Docker now and then.

use super::Shared;
use super::sandbox::lock;
use super::told::Told;
use sandtrace_provider::{Containers, DiscoverConfig, ProcRoot, Sighting, sightings};
use sandtrace_sys::proc_events::{ProcEvent, ProcEvents};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Time between two looks at everything.
const RESCAN: Duration = Duration::from_secs(1);

/// Time between two looks at a sandbox that has no interface yet.
const LOOK: Duration = Duration::from_millis(5);

/// After this long without an interface it is looked at seldom.
const YOUNG: Duration = Duration::from_secs(5);

/// After this long a sandbox without an interface is watched without one.
const GIVE_UP: Duration = Duration::from_secs(30);

/// A process for good: pid and start time.
pub(super) type Name = (u32, u64);

/// What is known of sandboxes by those who look for them.
#[derive(Default)]
pub(super) struct Arrivals {
    /// Seen, and handed on or waiting to be.
    known: Mutex<BTreeMap<Name, ()>>,
    over: AtomicBool,
}

struct Waiting {
    sighting: Sighting,
    since: Instant,
    look_at: Instant,
}

impl Arrivals {
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether nobody saw it before.
    pub(super) fn is_new(&self, sighting: &Sighting) -> bool {
        let name = (sighting.pid(), sighting.start_ticks());
        lock(&self.known).insert(name, ()).is_none()
    }

    /// Lets a process be found again, where there was no room for it.
    pub(super) fn forget(&self, name: Name) {
        lock(&self.known).remove(&name);
    }

    /// Looks at everything now and then: the net below the events. Docker may
    /// be slow, so this has a thread of its own.
    pub(super) fn rescan(&self, shared: &Shared, seen: &Sender<Sighting>) {
        let proc = ProcRoot::host();
        let (mut containers, mut told) = (Containers::default(), Told::default());
        while !self.is_over() {
            let edition = shared.edition();
            if let Ok((found, problems)) = sightings(&proc, edition.discover(), &mut containers) {
                told.tell(&problems);
                let alive: Vec<Name> = found
                    .iter()
                    .map(|it| (it.pid(), it.start_ticks()))
                    .collect();
                for sighting in found.into_iter().filter(|it| self.is_new(it)) {
                    if seen.send(sighting).is_err() {
                        return;
                    }
                }
                self.forget_the_dead(&alive);
            }
            for _ in 0..RESCAN.as_millis() / 20 {
                if self.is_over() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn forget_the_dead(&self, alive: &[Name]) {
        let proc = ProcRoot::host();
        let lives = |(pid, start): &Name| {
            let now = proc.process(*pid);
            now.is_ok_and(|now| now.start_ticks() == *start)
        };
        lock(&self.known).retain(|name, ()| alive.contains(name) || lives(name));
    }

    /// Hands on each sandbox once it has an interface. `seen` are those that
    /// the other thread found.
    pub(super) fn watch(
        &self,
        shared: &Shared,
        events: Option<ProcEvents>,
        seen: &std::sync::mpsc::Receiver<Sighting>,
        ready: &Sender<Sighting>,
    ) {
        let mut events = events;
        let mut waiting: Vec<Waiting> = Vec::new();
        let proc = ProcRoot::host();
        while !self.is_over() {
            self.take_events(
                &proc,
                shared.edition().discover(),
                &mut events,
                &mut waiting,
            );
            waiting.extend(seen.try_iter().map(Waiting::new));
            let now = Instant::now();
            for waiter in std::mem::take(&mut waiting) {
                waiting.extend(waiter.look(now, ready));
            }
            self.sleep(events.as_ref(), &waiting, now);
        }
    }

    fn take_events(
        &self,
        proc: &ProcRoot,
        config: &DiscoverConfig,
        events: &mut Option<ProcEvents>,
        waiting: &mut Vec<Waiting>,
    ) {
        let Some(open) = events else { return };
        let read = open.read(|event| {
            // What was lost the rescan finds.
            let ProcEvent::Exec(pid) = event else { return };
            if let Ok(Some(sighting)) = Sighting::of_process(proc, pid, config)
                && self.is_new(&sighting)
            {
                waiting.push(Waiting::new(sighting));
            }
        });
        if read.is_err() {
            *events = None;
        }
    }

    fn sleep(&self, events: Option<&ProcEvents>, waiting: &[Waiting], now: Instant) {
        let next = waiting.iter().map(|it| it.look_at).min();
        let left = next.map_or(Duration::from_millis(50), |at| {
            at.saturating_duration_since(now)
        });
        let left = left.min(Duration::from_millis(50));
        let Some(events) = events else {
            return std::thread::sleep(left);
        };
        let timeout = rustix::event::Timespec::try_from(left).unwrap_or_default();
        let mut fds = [rustix::event::PollFd::new(
            events,
            rustix::event::PollFlags::IN,
        )];
        // Interrupted or not, the loop looks again.
        let _woken = rustix::event::poll(&mut fds, Some(&timeout));
    }
}

impl Waiting {
    fn new(sighting: Sighting) -> Self {
        let now = Instant::now();
        Self {
            sighting,
            since: now,
            look_at: now,
        }
    }

    /// `None` once it was handed on or is gone.
    fn look(mut self, now: Instant, ready: &Sender<Sighting>) -> Option<Self> {
        if self.look_at > now {
            return Some(self);
        }
        if !self.sighting.is_alive() {
            return None;
        }
        let age = now.duration_since(self.since);
        if self.sighting.has_network() || age > GIVE_UP {
            // Nobody attaches any more where this fails.
            let _over = ready.send(self.sighting);
            return None;
        }
        self.look_at = now + if age < YOUNG { LOOK } else { LOOK * 10 };
        Some(self)
    }
}
