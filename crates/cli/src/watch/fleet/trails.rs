//! The thread that writes the trails of all sandboxes.

use crate::watch::outlet::{Key, Load, Parcel};
use crate::watch::trail::{Appender, Entry, Finished};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// How often trails are looked at for a group commit that is due.
const COMMIT_CHECK: Duration = Duration::from_millis(10);

/// What became of a trail.
pub(super) type Outcome = (Key, Result<Finished>);

struct Trails {
    open: BTreeMap<Key, (Box<Appender>, Arc<Load>)>,
    /// Trails with records that are not durable yet.
    waiting: BTreeSet<Key>,
    outcomes: Sender<Outcome>,
}

/// Runs until it is told that nothing follows.
pub(super) fn run(parcels: &Receiver<Parcel>, outcomes: Sender<Outcome>) {
    let mut trails = Trails {
        open: BTreeMap::new(),
        waiting: BTreeSet::new(),
        outcomes,
    };
    loop {
        let patience = if trails.waiting.is_empty() {
            Duration::from_secs(3600)
        } else {
            COMMIT_CHECK
        };
        match parcels.recv_timeout(patience) {
            Ok(Parcel::Close) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(parcel) => trails.take(parcel),
            Err(RecvTimeoutError::Timeout) => trails.commit_what_is_due(),
        }
    }
}

impl Trails {
    fn take(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Close => {}
            Parcel::Open(key, appender, load) => {
                self.open.insert(key, (appender, load));
            }
            Parcel::Entry(key, Entry::Event(judged)) => {
                let Some((appender, load)) = self.open.get_mut(&key) else {
                    return;
                };
                load.taken();
                let done = appender
                    .append(&judged)
                    .and_then(|()| appender.commit_if_due());
                let waits = appender.waits();
                match done {
                    Ok(()) if waits => _ = self.waiting.insert(key),
                    Ok(()) => _ = self.waiting.remove(&key),
                    Err(error) => self.fail(key, error.into()),
                }
            }
            Parcel::Entry(key, Entry::End(end)) => {
                self.waiting.remove(&key);
                let Some((appender, load)) = self.open.remove(&key) else {
                    return;
                };
                load.fail();
                self.tell(key, appender.end(end).map_err(Into::into));
            }
        }
        // A flood of one must not put off the others' commits.
        if self.waiting.len() > 1 {
            self.commit_what_is_due();
        }
    }

    fn commit_what_is_due(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            let Some((appender, _)) = self.open.get_mut(&key) else {
                continue;
            };
            match appender.commit_if_due() {
                Ok(()) if appender.waits() => _ = self.waiting.insert(key),
                Ok(()) => {}
                Err(error) => self.fail(key, error.into()),
            }
        }
    }

    /// One trail that cannot be written ends; the others go on.
    fn fail(&mut self, key: Key, error: anyhow::Error) {
        self.waiting.remove(&key);
        if let Some((_, load)) = self.open.remove(&key) {
            load.fail();
        }
        self.tell(key, Err(error));
    }

    fn tell(&self, key: Key, outcome: Result<Finished>) {
        // The supervisor lives as long as any trail.
        let _gone = self.outcomes.send((key, outcome));
    }
}
