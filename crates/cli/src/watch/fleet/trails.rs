//! A thread that writes the trails of many sandboxes.

use crate::watch::outlet::{Key, Load, Parcel};
use crate::watch::trail::{Appender, Entry, Finished};
use anyhow::Result;
use sandtrace_audit_chain::WriteError;
use sandtrace_sys::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// What became of a trail.
pub(super) type Outcome = (Key, Result<Finished>);

struct Trails {
    open: BTreeMap<Key, Open>,
    /// When which trail needs tending, the next one first.
    due: BTreeSet<(u64, Key)>,
    outcomes: Sender<Outcome>,
}

struct Open {
    appender: Box<Appender>,
    load: Arc<Load>,
    /// As it stands in [`Trails::due`].
    due_us: Option<u64>,
}

/// Runs until it is told that nothing follows.
pub(super) fn run(parcels: &Receiver<Parcel>, outcomes: Sender<Outcome>) {
    let mut trails = Trails {
        open: BTreeMap::new(),
        due: BTreeSet::new(),
        outcomes,
    };
    loop {
        match parcels.recv_timeout(trails.patience()) {
            Ok(Parcel::Close) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(parcel) => trails.take(parcel),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // After each parcel: a flood of one must not put off the others' commits.
        trails.tend_what_is_due();
    }
}

impl Trails {
    fn patience(&self) -> Duration {
        let next = self.due.first();
        next.map_or(Duration::from_secs(3600), |(due_us, _)| {
            Duration::from_micros(due_us.saturating_sub(clock::boot_us()))
        })
    }

    fn take(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Close => {}
            Parcel::Open(key, appender, load) => {
                let due_us = None;
                self.open.insert(
                    key,
                    Open {
                        appender,
                        load,
                        due_us,
                    },
                );
            }
            Parcel::Entry(key, Entry::Event(judged)) => {
                let Some(open) = self.open.get_mut(&key) else {
                    return;
                };
                open.load.taken();
                let done = open
                    .appender
                    .append(*judged)
                    .and_then(|()| open.appender.tend());
                self.schedule(key, done);
            }
            Parcel::Entry(key, Entry::End(end)) => {
                if let Some(open) = self.close(key) {
                    self.tell(key, open.appender.end(end).map_err(Into::into));
                }
            }
        }
    }

    fn tend_what_is_due(&mut self) {
        let now_us = clock::boot_us();
        while let Some(&(_, key)) = self.due.first().filter(|(due_us, _)| *due_us <= now_us) {
            let Some(open) = self.open.get_mut(&key) else {
                return;
            };
            let done = open.appender.tend();
            self.schedule(key, done);
        }
    }

    /// Notes when the trail needs tending next; one that cannot be written
    /// ends, and the others go on.
    fn schedule(&mut self, key: Key, done: Result<(), WriteError>) {
        if let Err(error) = done {
            self.close(key);
            self.tell(key, Err(error.into()));
            return;
        }
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        // Not at once again: what is due now was just done.
        let soonest_us = clock::boot_us() + 1;
        let due_us = open.appender.next_due_us().map(|due| due.max(soonest_us));
        if let Some(before) = std::mem::replace(&mut open.due_us, due_us) {
            self.due.remove(&(before, key));
        }
        if let Some(due_us) = due_us {
            self.due.insert((due_us, key));
        }
    }

    fn close(&mut self, key: Key) -> Option<Open> {
        let open = self.open.remove(&key)?;
        if let Some(due_us) = open.due_us {
            self.due.remove(&(due_us, key));
        }
        open.load.fail();
        Some(open)
    }

    fn tell(&self, key: Key, outcome: Result<Finished>) {
        // The supervisor lives as long as any trail.
        let _gone = self.outcomes.send((key, outcome));
    }
}
