//! The thread of one witness.

use super::ask::{AskError, Question};
use super::{Trail, WitnessTarget, lock};
use crate::show;
use sandtrace_audit_chain::merkle::{CompactRange, Growth};
use sandtrace_audit_chain::note::Note;
use sandtrace_event::Cosignature;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Least time between two questions about one trail.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest time between two questions to a witness that does not answer.
const MAX_RETREAT: Duration = Duration::from_secs(30);

/// What waits for one witness.
pub(super) struct Lane {
    target: WitnessTarget,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    slots: Vec<Slot>,
    /// Questions in a row without an answer.
    unanswered: u32,
    /// The witness is left alone until then.
    retreat: Option<Instant>,
    closed: bool,
}

/// One trail at one witness.
struct Slot {
    trail: Arc<Trail>,
    /// The newest checkpoint that was not asked about yet.
    note: Option<String>,
    /// What the witness saw, and what came since; unknown where the trail is
    /// older than this process, and while a question is under way.
    growth: Option<Growth>,
    /// The records up to that checkpoint which `growth` does not have yet.
    records: Option<CompactRange>,
    asking: bool,
    not_before: Option<Instant>,
    hurry: bool,
    /// What was said last of this trail at this witness.
    told: Option<String>,
}

impl Lane {
    pub(super) fn start(target: &WitnessTarget) -> Arc<Self> {
        let lane = Arc::new(Self {
            target: target.clone(),
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&lane);
        thread::spawn(move || own.run());
        lane
    }

    pub(super) fn add(&self, trail: &Arc<Trail>) {
        lock(&self.queue).slots.push(Slot {
            trail: Arc::clone(trail),
            note: None,
            growth: Some(Growth::since(CompactRange::default())),
            records: None,
            asking: false,
            not_before: None,
            hurry: false,
            told: None,
        });
    }

    /// The newest checkpoint takes the place of one that still waits.
    pub(super) fn submit(&self, trail: &Arc<Trail>, note: &str, records: &CompactRange) {
        let mut queue = lock(&self.queue);
        if let Some(slot) = queue.slot(trail) {
            slot.note = Some(note.to_owned());
            let waiting = slot.records.as_mut();
            if waiting.is_none_or(|waiting| waiting.append(records).is_err()) {
                // Where they follow nothing, the trail is read back later.
                slot.records = Some(records.clone());
            }
            self.changed.notify_all();
        }
    }

    pub(super) fn is_waiting(&self, trail: &Arc<Trail>) -> bool {
        let mut queue = lock(&self.queue);
        let slot = queue.slot(trail);
        slot.is_some_and(|slot| slot.asking || slot.note.is_some())
    }

    /// Whether it is being asked, and has answered when it was asked before.
    pub(super) fn may_answer(&self, trail: &Arc<Trail>) -> bool {
        let is_away = lock(&self.queue).unanswered > 1;
        !is_away && self.is_waiting(trail)
    }

    pub(super) fn hurry(&self, trail: &Arc<Trail>) {
        let mut queue = lock(&self.queue);
        if let Some(slot) = queue.slot(trail) {
            slot.hurry = true;
            self.changed.notify_all();
        }
    }

    pub(super) fn forget(&self, trail: &Arc<Trail>) {
        let mut queue = lock(&self.queue);
        if queue
            .slot(trail)
            .is_some_and(|slot| slot.asking || slot.note.is_some())
        {
            let (witness, path) = (&self.target.address, trail.path.display());
            show::tell(&format!(
                "sandtrace: witness {witness} has not signed the last checkpoint of {path}"
            ));
        }
        queue.slots.retain(|slot| !Arc::ptr_eq(&slot.trail, trail));
    }

    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        while let Some((trail, note, mut growth)) = self.next() {
            let answer = self.ask(&trail, &note, &mut growth);
            self.settle(&trail, growth, answer);
        }
    }

    /// Waits for a checkpoint whose turn it is; `None` at the end.
    fn next(&self) -> Option<(Arc<Trail>, String, Option<Growth>)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            let now = Instant::now();
            let retreat = queue.retreat;
            let due = queue.slots.iter_mut().filter(|slot| slot.note.is_some());
            let due = due.min_by_key(|slot| slot.due(retreat, now));
            let wait = match due {
                None => Duration::from_secs(3600),
                Some(slot) => {
                    let wait = slot.due(retreat, now).saturating_duration_since(now);
                    if wait.is_zero()
                        && let Some(note) = slot.note.take()
                    {
                        slot.asking = true;
                        slot.not_before = Some(now + PAUSE);
                        return Some((Arc::clone(&slot.trail), note, slot.take_growth()));
                    }
                    wait
                }
            };
            let waited = self.changed.wait_timeout(queue, wait);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ask(
        &self,
        trail: &Trail,
        note: &str,
        growth: &mut Option<Growth>,
    ) -> Result<Cosignature, AskError> {
        let useless = |why: &dyn std::fmt::Display| AskError::Useless(why.to_string());
        let note = Note::parse(note.as_bytes()).map_err(|error| useless(&error))?;
        let checkpoint = note.text().parse().map_err(|error| useless(&error))?;
        let question = Question {
            target: &self.target,
            trail,
            note,
            checkpoint,
        };
        // Some other growth than that of this checkpoint proves nothing.
        let size = question.checkpoint.size();
        if growth.as_ref().is_some_and(|growth| growth.size() != size) {
            *growth = None;
        }
        question.ask(growth)
    }

    fn settle(
        &self,
        trail: &Arc<Trail>,
        growth: Option<Growth>,
        answer: Result<Cosignature, AskError>,
    ) {
        let mut queue = lock(&self.queue);
        let was_away = queue.unanswered > 0;
        match &answer {
            Err(AskError::Away(_)) => queue.retreat(),
            _ => {
                queue.unanswered = 0;
                queue.retreat = None;
            }
        }
        let is_first_failure = queue.unanswered == 1;
        let Some(slot) = queue.slot(trail) else {
            return;
        };
        slot.asking = false;
        slot.growth = growth;
        let witness = &self.target.address;
        match answer {
            Ok(cosignature) => {
                slot.told = None;
                if was_away {
                    show::tell(&format!("sandtrace: witness {witness} answers again"));
                }
                keep(&trail.cosignatures, cosignature);
            }
            Err(error) => {
                let is_away = matches!(error, AskError::Away(_));
                let path = trail.path.display();
                let problem = error.to_string();
                let is_news = slot.told.as_ref() != Some(&problem);
                if is_away && is_first_failure {
                    show::tell(&format!("sandtrace: witness {witness}: {problem}"));
                } else if !is_away && is_news {
                    show::tell(&format!("sandtrace: witness {witness}, {path}: {problem}"));
                    slot.told = Some(problem);
                }
            }
        }
        drop(queue);
        trail.answered.notify_all();
    }
}

impl Queue {
    fn slot(&mut self, trail: &Arc<Trail>) -> Option<&mut Slot> {
        let mut slots = self.slots.iter_mut();
        slots.find(|slot| Arc::ptr_eq(&slot.trail, trail))
    }

    fn retreat(&mut self) {
        let pause = Duration::from_secs(1 << self.unanswered.min(5));
        self.unanswered = self.unanswered.saturating_add(1);
        self.retreat = Some(Instant::now() + pause.min(MAX_RETREAT));
    }
}

impl Slot {
    fn due(&self, retreat: Option<Instant>, now: Instant) -> Instant {
        if self.hurry {
            return now;
        }
        let due = [retreat, self.not_before].into_iter().flatten().max();
        due.unwrap_or(now).max(now)
    }

    /// Up to the checkpoint that waits.
    fn take_growth(&mut self) -> Option<Growth> {
        let records = self.records.take();
        let mut growth = self.growth.take()?;
        let records = records?;
        growth.append(&records).is_ok().then_some(growth)
    }
}

/// The newest of each witness is enough.
fn keep(cosignatures: &Mutex<Vec<Cosignature>>, cosignature: Cosignature) {
    let mut all = lock(cosignatures);
    all.retain(|other| other.witness != cosignature.witness);
    all.push(cosignature);
}
