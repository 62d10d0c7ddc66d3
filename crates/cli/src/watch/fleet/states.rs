//! The thread that asks, in turns, whether sandboxes are paused. Those whose APIs
//! are silent must not keep it from the others: they are asked more and more
//! seldom, after all others, and take a fifth of its time.

use super::known::Name;
use super::sandbox::lock;
use crate::watch::pause::PATIENCE;
use crate::watch::states::{Look, Subject};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Looks by the kernel's word alone between two questions to a silent API, at most.
const MAX_REST: u32 = 32;

/// Time for silent APIs that may be saved up.
const SAVED: Duration = Duration::from_secs(1);

/// Part of the time that they may have.
const PART: u32 = 5;

/// What each has to answer when that is used up.
const LEAST: Duration = Duration::from_millis(20);

/// Sandboxes whose state is followed, and when each is asked next.
pub(super) struct States {
    asked: Mutex<Asked>,
    changed: Condvar,
    /// `None`: nobody is asked.
    interval: Option<Duration>,
}

#[derive(Default)]
struct Asked {
    /// By when each is looked at next. Taken out while it is.
    turns: Turns,
    /// The same of those whose APIs were silent and are to be asked again.
    silent: Turns,
    number: u64,
    over: bool,
}

type Turns = BTreeMap<(Instant, u64), Turn>;

struct Turn {
    subject: Subject,
    /// Looks until its API is asked.
    rest: u32,
    /// What `rest` is after the next silence; 0 where it answered.
    silence: u32,
}

impl Turn {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            rest: 0,
            silence: 0,
        }
    }

    fn look(&mut self, budget: &mut Budget) -> Look {
        if let Some(rest) = self.rest.checked_sub(1) {
            self.rest = rest;
            return self.subject.look(Duration::ZERO);
        }
        let began = Instant::now();
        let patience = match self.silence {
            0 => PATIENCE,
            _ => budget.patience(began),
        };
        let look = self.subject.look(patience);
        self.silence = match look {
            Look::Silent => {
                budget.spend(began.elapsed());
                (self.silence * 2).clamp(1, MAX_REST)
            }
            Look::Done | Look::Gone => 0,
        };
        self.rest = self.silence;
        look
    }
}

/// How long silent APIs may be waited for.
struct Budget {
    saved: Duration,
    at: Instant,
}

impl Budget {
    fn new(at: Instant) -> Self {
        Self { saved: SAVED, at }
    }

    fn patience(&mut self, now: Instant) -> Duration {
        let more = now.saturating_duration_since(self.at) / PART;
        self.saved = (self.saved + more).min(SAVED);
        self.at = now;
        self.saved.clamp(LEAST, PATIENCE)
    }

    fn spend(&mut self, time: Duration) {
        self.saved = self.saved.saturating_sub(time);
    }
}

impl Asked {
    fn add(&mut self, at: Instant, turn: Turn) {
        self.number += 1;
        let is_silent = turn.rest == 0 && turn.silence > 0;
        let turns = if is_silent {
            &mut self.silent
        } else {
            &mut self.turns
        };
        turns.insert((at, self.number), turn);
    }

    /// The next that is due, those that answer first; or else when one is.
    fn take(&mut self, now: Instant) -> Result<Turn, Option<Instant>> {
        let first = |turns: &Turns| turns.first_key_value().map(|((at, _), _)| *at);
        for turns in [&mut self.turns, &mut self.silent] {
            if first(turns).is_some_and(|at| at <= now)
                && let Some((_, turn)) = turns.pop_first()
            {
                return Ok(turn);
            }
        }
        Err(first(&self.turns)
            .into_iter()
            .chain(first(&self.silent))
            .min())
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
        self.again(Turn::new(subject));
    }

    fn again(&self, turn: Turn) {
        if let Some(interval) = self.interval {
            let at = Instant::now() + interval;
            lock(&self.asked).add(at, turn);
            self.changed.notify_all();
        }
    }

    /// Has the sandbox of this process looked at now.
    pub(super) fn hurry(&self, name: Name) {
        let now = Instant::now();
        let mut asked = lock(&self.asked);
        let of_it = |_: &_, turn: &mut Turn| turn.subject.name() == name;
        let mut hurried: Vec<_> = asked.turns.extract_if(.., of_it).collect();
        hurried.extend(asked.silent.extract_if(.., of_it));
        for (_, turn) in hurried {
            asked.add(now, turn);
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
        let mut budget = Budget::new(Instant::now());
        while let Some(mut turn) = self.next() {
            if turn.look(&mut budget) != Look::Gone {
                self.again(turn);
            }
        }
    }

    fn next(&self) -> Option<Turn> {
        let mut asked = lock(&self.asked);
        loop {
            if asked.over {
                return None;
            }
            let now = Instant::now();
            let next = match asked.take(now) {
                Ok(turn) => return Some(turn),
                Err(next) => next,
            };
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
        assert_eq!(states.next().unwrap().subject.name(), new);
        let later = lock(&states.asked).take(Instant::now()).err();
        assert!(later.is_some_and(|at| at.is_some()), "the other is not due");
    }

    #[test]
    fn those_that_answer_go_first() {
        let mut asked = Asked::default();
        let now = Instant::now();
        for (pid, rest, silence) in [(1, 0, 1), (2, 0, 0), (3, 7, 8)] {
            let subject = subject((pid, 1));
            let turn = Turn {
                subject,
                rest,
                silence,
            };
            asked.add(now, turn);
        }
        let mut next = || asked.take(now).ok().map(|turn| turn.subject.name().0);
        let order = [next(), next(), next(), next()];
        assert_eq!(order, [Some(2), Some(3), Some(1), None]);
    }

    #[test]
    fn silent_apis_take_a_fifth_of_the_time() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let (mut now, mut silent) = (start, Duration::ZERO);
        for _ in 0..1000 {
            let patience = budget.patience(now);
            budget.spend(patience);
            (now, silent) = (now + patience * 5, silent + patience);
        }
        // As much as was saved is more than a fifth.
        assert!(silent <= (now - start) / PART + SAVED, "{silent:?}");
        let mut budget = Budget::new(start);
        let without_a_break = (0..100).map(|_| {
            let patience = budget.patience(start);
            budget.spend(patience);
            patience
        });
        assert_eq!(without_a_break.sum::<Duration>(), SAVED + LEAST * 95);
        assert_eq!(budget.patience(start + Duration::from_secs(5)), PATIENCE);
    }

    /// A process that is none any more is not looked at again.
    #[test]
    fn one_that_is_gone_is_forgotten() {
        let mut turn = Turn::new(subject((u32::MAX, 1)));
        assert_eq!(turn.look(&mut Budget::new(Instant::now())), Look::Gone);
    }
}
