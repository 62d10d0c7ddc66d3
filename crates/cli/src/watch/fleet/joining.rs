//! Sandboxes join the watch, get more than they had, and leave.

use super::State;
use super::arrivals::{Job, News, lives};
use super::capture::Order;
use super::following::{Following, SOON};
use super::known::{Name, name_of};
use super::sandbox::{Sandbox, lock};
use super::trails;
use crate::show;
use crate::watch::outlet::Key;
use sandtrace_provider::{ProcRoot, Sighting};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Who is watched now.
#[derive(Default)]
pub(super) struct Roll {
    watched: BTreeMap<Key, (Name, String)>,
    next_key: Key,
    refused: bool,
    pub(super) attached: u64,
}

impl State {
    /// What goes wrong with one sandbox concerns no other.
    pub(super) fn join(&self, job: Job, news: &Sender<News>) {
        let following = match job {
            Job::Attach(sighting) => self.attach(sighting),
            Job::Describe(following) => Some(self.describe(following)),
        };
        if let Some(following) = following {
            // Nobody looks any more where the watch ends.
            let _over = news.send(News::Watched(following));
        }
    }

    /// Attaches one sandbox.
    fn attach(&self, sighting: Box<Sighting>) -> Option<Box<Following>> {
        let name = name_of(&sighting);
        let id = sighting.sandbox_id().to_owned();
        let key = self.enrol(name, &id)?;
        match self.open(key, sighting) {
            Ok((mut sandbox, following)) => {
                if let Some(subject) = sandbox.subject.take() {
                    self.states.add(subject);
                }
                show::tell(&format!("{id} (pid {}): watching", name.0));
                lock(&self.roll).attached += 1;
                for disk in &sandbox.disks {
                    self.scans.add(Arc::clone(disk));
                }
                if let Some(calls) = &sandbox.calls {
                    self.calls.add(Arc::clone(calls));
                }
                self.tell(key, Order::Watch(Box::new(sandbox)));
                Some(Box::new(following))
            }
            Err(error) => {
                lock(&self.roll).watched.remove(&key);
                self.failed(name, &id, "cannot be watched", &error);
                None
            }
        }
    }

    fn open(&self, key: Key, sighting: Box<Sighting>) -> anyhow::Result<(Sandbox, Following)> {
        let deadline = Instant::now() + SOON;
        let edition = self.shared.edition();
        let config = edition.discover();
        // Before the description: what changes meanwhile shows later.
        let outline = sighting.outline()?;
        let target = sighting.describe(&ProcRoot::host(), config, deadline)?;
        let sighted = (sighting, outline);
        let attached = Sandbox::attach(key, sighted, target, &self.shared, &edition);
        attached.map_err(|failure| failure.error)
    }

    /// Describes a sandbox that is watched again, and takes in what it has
    /// beside what it had.
    fn describe(&self, mut following: Box<Following>) -> Box<Following> {
        let deadline = Instant::now() + following.patience();
        let edition = self.shared.edition();
        let sighting = following.sighting();
        let described = sighting.describe(&ProcRoot::host(), edition.discover(), deadline);
        if let Some(addition) = following.take(described.ok()) {
            for disk in &addition.disks {
                self.scans.add(Arc::clone(disk));
            }
            self.tell(following.key(), Order::Extend(following.key(), addition));
        }
        following
    }

    /// Says what went wrong, once, and tries again after a pause where the
    /// sandbox lives.
    fn failed(&self, name: Name, id: &str, what: &str, error: &anyhow::Error) {
        let why = format!("{what}: {}", error.root_cause());
        let new = self.arrivals.known.failed(name, &why, Instant::now());
        if new {
            let again = if lives(&name) {
                "; it is tried again"
            } else {
                ""
            };
            show::tell(&format!("{id} (pid {}): {what}: {error:#}{again}", name.0));
        }
    }

    /// A place on the roll, if there is one left.
    fn enrol(&self, name: Name, id: &str) -> Option<Key> {
        let most = self.shared.edition().options().max_sandboxes;
        let mut roll = lock(&self.roll);
        if roll.watched.len() >= most {
            if !std::mem::replace(&mut roll.refused, true) {
                show::tell(&format!(
                    "{id} (pid {}): not watched: {most} sandboxes are, which --max-sandboxes allows",
                    name.0
                ));
            }
            drop(roll);
            // To be found again when there may be room.
            self.arrivals.known.forget(name);
            return None;
        }
        let key = roll.next_key;
        roll.next_key += 1;
        roll.watched.insert(key, (name, id.to_owned()));
        Some(key)
    }

    /// A trail ended or failed. Its sandbox is watched anew where it lives.
    pub(super) fn note(&self, (key, outcome): trails::Outcome) {
        let mut roll = lock(&self.roll);
        roll.refused = false;
        let Some((name, id)) = roll.watched.remove(&key) else {
            return;
        };
        drop(roll);
        match outcome {
            Ok(finished) => {
                let records = finished.head.map_or(0, |head| head.seq);
                let records = show::grouped(records);
                show::tell(&format!("{id} (pid {}): ended, {records} records", name.0));
                if lives(&name) {
                    self.arrivals.known.failed(name, "ended", Instant::now());
                } else {
                    self.shared.earlier.forget(&id, name);
                }
            }
            Err(error) => {
                self.tell(key, Order::Drop(key));
                self.failed(name, &id, "its trail failed", &error);
            }
        }
    }
}
