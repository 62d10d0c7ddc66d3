//! Sandboxes as they arrive: by the kernel's word when something happens, and
//! by looking at all processes and at Docker now and then. Those that are
//! watched are looked at further: what they are made of may not be there yet,
//! or may change.

use super::following::Following;
use super::known::{Known, Name, name_of};
use super::sandbox::lock;
use super::senses::Senses;
use super::told::Told;
use super::{Shared, State};
use crate::watch::outlet::Key;
use sandtrace_provider::{Containers, ProcRoot, Sighting, contained, vmms};
use sandtrace_sys::proc_events::ProcEvents;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// Time between two looks at everything.
const RESCAN: Duration = Duration::from_secs(1);

/// Most VMMs whose APIs are asked at the same time only because they said
/// nothing before: those that attach have their threads for others.
const ASKED_AT_ONCE: u32 = 4;

/// Time between two looks at a sandbox that has no interface yet.
const LOOK: Duration = Duration::from_millis(5);

/// After this long without an interface it is looked at seldom.
const YOUNG: Duration = Duration::from_secs(5);

/// After this long a sandbox without an interface is watched without one,
/// until it has one.
const GIVE_UP: Duration = Duration::from_secs(30);

/// What the thread that looks is told.
pub(super) enum News {
    /// The other thread found one.
    Seen(Box<Sighting>),
    /// One is watched; it is to be looked at further.
    Watched(Box<Following>),
}

/// What there is to do for those that attach.
pub(super) enum Job {
    /// A sandbox that nobody watches.
    Attach(Box<Sighting>),
    /// One that is watched looks different: describe it again.
    Describe(Box<Following>),
}

/// What is known of sandboxes by those who look for them.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) known: Known,
    over: AtomicBool,
}

/// Whom the looking thread looks at.
#[derive(Default)]
struct Looks {
    waiting: Vec<Waiting>,
    /// By when each is to be looked at: most are not, most of the time.
    followed: BTreeMap<(Instant, Key), Following>,
    /// How many are being asked though nothing changed.
    asked: u32,
}

struct Waiting {
    sighting: Box<Sighting>,
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

    /// Whether it is to be attached: nobody saw it before, or it may be tried again.
    pub(super) fn is_due(&self, sighting: &Sighting) -> bool {
        self.known.is_due(name_of(sighting), Instant::now())
    }

    /// Looks at all processes now and then: the net below the events.
    pub(super) fn look_for_vmms(&self, shared: &Shared, seen: &Sender<News>) {
        let proc = ProcRoot::host();
        self.again_and_again(|| {
            let found = vmms(&proc, shared.edition().discover()).unwrap_or_default();
            let alive = self.hand_on(found, seen);
            self.known.keep(|name| alive.contains(name) || lives(name));
        });
    }

    /// The same for containers: Docker may be slow, and VMMs do not wait for it.
    pub(super) fn look_for_containers(&self, shared: &Shared, seen: &Sender<News>) {
        let proc = ProcRoot::host();
        let (mut containers, mut told) = (Containers::default(), Told::default());
        self.again_and_again(|| {
            let (found, problems) = contained(&proc, shared.edition().discover(), &mut containers);
            told.tell(&problems);
            self.hand_on(found, seen);
        });
    }

    /// Until the watch is over.
    fn again_and_again(&self, mut look: impl FnMut()) {
        while !self.is_over() {
            look();
            for _ in 0..RESCAN.as_millis() / 20 {
                if !self.is_over() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Hands on those that nobody saw before. Answers who all of them are.
    fn hand_on(&self, found: Vec<Sighting>, seen: &Sender<News>) -> Vec<Name> {
        let names = found.iter().map(name_of).collect();
        for sighting in found.into_iter().filter(|it| self.is_due(it)) {
            // Where nobody takes them the watch is over.
            let _over = seen.send(News::Seen(Box::new(sighting)));
        }
        names
    }

    /// Hands on each sandbox once it has an interface, and again when it
    /// looks different.
    pub(super) fn watch(
        &self,
        state: &State,
        events: Option<ProcEvents>,
        news: &Receiver<News>,
        jobs: &Sender<Job>,
    ) {
        let mut senses = Senses::new(events);
        let mut looks = Looks::default();
        let proc = ProcRoot::host();
        while !self.is_over() {
            let heard = senses.hear(&proc, Instant::now());
            let edition = state.shared.edition();
            for pid in heard.processes {
                if let Ok(Some(sighting)) = Sighting::of_process(&proc, pid, edition.discover())
                    && self.is_due(&sighting)
                {
                    looks.waiting.push(Waiting::new(Box::new(sighting)));
                }
            }
            for name in heard.frozen {
                state.states.hurry(name);
            }
            for news in news.try_iter() {
                match news {
                    News::Seen(sighting) => looks.waiting.push(Waiting::new(sighting)),
                    News::Watched(following) => {
                        if following.is_new() {
                            senses.follow(following.sighting());
                        }
                        looks.asked -= u32::from(following.is_asked());
                        looks.follow(*following);
                    }
                }
            }
            looks.hurry(&std::mem::take(&mut *lock(&state.shared.losers)));
            let now = Instant::now();
            for name in looks.look(now, jobs) {
                senses.forget(name);
            }
            senses.sleep(looks.next(), now);
        }
    }
}

/// Whether a process still runs.
pub(super) fn lives((pid, start_ticks): &Name) -> bool {
    let now = ProcRoot::host().process(*pid);
    now.is_ok_and(|now| now.start_ticks() == *start_ticks)
}

impl Looks {
    fn follow(&mut self, following: Following) {
        let at = if following.has_lost() {
            Instant::now()
        } else {
            following.look_at()
        };
        self.followed.insert((at, following.key()), following);
    }

    /// These lost an interface. One that is being described shows it when it
    /// is back.
    fn hurry(&mut self, losers: &[Key]) {
        if losers.is_empty() {
            return;
        }
        let lost = |(_, key): &(Instant, Key), _: &mut Following| losers.contains(key);
        let lost: Vec<_> = self.followed.extract_if(.., lost).collect();
        for (_, following) in lost {
            self.follow(following);
        }
    }

    /// Nobody attaches any more where handing on fails. Answers whose watch is over.
    fn look(&mut self, now: Instant, jobs: &Sender<Job>) -> Vec<Name> {
        let mut over = Vec::new();
        for waiter in std::mem::take(&mut self.waiting) {
            match waiter.look(now) {
                Look::Wait(waiter) => self.waiting.push(waiter),
                Look::Ready(sighting) => _ = jobs.send(Job::Attach(sighting)),
                Look::Gone => {}
            }
        }
        let later = self.followed.split_off(&(now, Key::MAX));
        for mut following in std::mem::replace(&mut self.followed, later).into_values() {
            if following.is_over() {
                over.push(name_of(following.sighting()));
            } else if following.is_due(now, self.asked < ASKED_AT_ONCE) {
                self.asked += u32::from(following.is_asked());
                _ = jobs.send(Job::Describe(Box::new(following)));
            } else {
                self.follow(following);
            }
        }
        over
    }

    fn next(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|it| it.look_at);
        let followed = self.followed.first_key_value().map(|((at, _), _)| *at);
        waiting.chain(followed).min()
    }
}

/// What came of a look.
enum Look {
    Wait(Waiting),
    Ready(Box<Sighting>),
    Gone,
}

impl Waiting {
    fn new(sighting: Box<Sighting>) -> Self {
        let now = Instant::now();
        Self {
            sighting,
            since: now,
            look_at: now,
        }
    }

    fn look(mut self, now: Instant) -> Look {
        if self.look_at > now {
            return Look::Wait(self);
        }
        if !self.sighting.is_alive() {
            return Look::Gone;
        }
        let age = now.duration_since(self.since);
        if self.sighting.has_network() || age > GIVE_UP {
            return Look::Ready(self.sighting);
        }
        self.look_at = now + if age < YOUNG { LOOK } else { LOOK * 10 };
        Look::Wait(self)
    }
}
