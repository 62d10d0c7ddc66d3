//! Asks witnesses to cosign the checkpoints of trails as these are written.
//!
//! [`Witnesses`] has one thread per witness, whatever the number of trails.
//! A [`TrailHandle`] is shown the records of one trail once they are durable.
//! What waits for a witness is, per trail, the newest checkpoint and O(log n)
//! hashes: a witness that is slow or away costs no memory and holds nobody up.

mod ask;
mod history;
mod lane;

use super::address::Address;
use lane::Lane;
use sandtrace_audit_chain::merkle::CompactRange;
use sandtrace_audit_chain::note::VerifierKey;
use sandtrace_event::{AuditEvent, Cosignature, Payload, TrailKey};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A witness and, where it is known, its key: `URL` or `URL#VKEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WitnessTarget {
    address: Address,
    key: Option<VerifierKey>,
}

impl FromStr for WitnessTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, key) = match text.split_once('#') {
            Some((address, key)) => (address, Some(key)),
            None => (text, None),
        };
        let key: Option<VerifierKey> = key
            .map(str::parse)
            .transpose()
            .map_err(|error| format!("the key after #: {error}"))?;
        Ok(Self {
            address: address.parse()?,
            key,
        })
    }
}

impl fmt::Display for WitnessTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "#{key}"))
    }
}

/// The witnesses of a process.
pub(crate) struct Witnesses {
    lanes: Vec<Arc<Lane>>,
}

impl Witnesses {
    /// Starts a thread for each; `None` where there is no witness.
    pub(crate) fn start(targets: &[WitnessTarget]) -> Option<Self> {
        let lanes: Vec<_> = targets.iter().map(Lane::start).collect();
        (!lanes.is_empty()).then_some(Self { lanes })
    }

    /// For the trail whose first file this is.
    pub(crate) fn trail(&self, path: &Path) -> TrailHandle {
        let trail = Arc::new(Trail {
            path: path.to_owned(),
            certificates: Mutex::default(),
            cosignatures: Mutex::default(),
            answered: Condvar::new(),
        });
        for lane in &self.lanes {
            lane.add(&trail);
        }
        TrailHandle {
            lanes: self.lanes.clone(),
            trail,
            since: CompactRange::default(),
        }
    }
}

impl Drop for Witnesses {
    /// A thread may wait for an answer; nobody waits for the thread.
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.close());
    }
}

/// What all witnesses of a trail share.
struct Trail {
    path: PathBuf,
    /// Certificates of the keys of this session, the oldest first.
    certificates: Mutex<Vec<String>>,
    cosignatures: Mutex<Vec<Cosignature>>,
    answered: Condvar,
}

/// Most certificates that are kept of a session; keys live for an hour.
const MAX_CERTIFICATES: usize = 4096;

/// One trail, as its writer sees it.
pub(crate) struct TrailHandle {
    lanes: Vec<Arc<Lane>>,
    trail: Arc<Trail>,
    /// The records since the last checkpoint.
    since: CompactRange,
}

impl TrailHandle {
    /// Shows it a record that is durable; all of them, in their order. A
    /// checkpoint is sent to the witnesses; nothing waits here.
    pub(crate) fn observe(&mut self, event: &AuditEvent) {
        let index = event.seq.0.saturating_sub(1);
        if index != self.since.end() {
            self.since = CompactRange::starting_at(index);
        }
        match &event.payload {
            Payload::TrailStart(start) => self.begin_session(start.key.as_ref()),
            Payload::SessionStart(start) => self.begin_session(start.key.as_ref()),
            Payload::KeyRotate(rotate) => {
                let mut certificates = lock(&self.trail.certificates);
                if certificates.len() < MAX_CERTIFICATES {
                    certificates.push(rotate.certificate.clone());
                }
            }
            Payload::Checkpoint(checkpoint) => self.submit(&checkpoint.note),
            _ => {}
        }
        self.since.push_record(&event.record_hash);
    }

    fn begin_session(&self, key: Option<&TrailKey>) {
        let certificate = key.map(|key| key.certificate.clone());
        *lock(&self.trail.certificates) = certificate.into_iter().collect();
    }

    fn submit(&mut self, note: &str) {
        let size = self.since.end();
        let records = std::mem::replace(&mut self.since, CompactRange::starting_at(size));
        for lane in &self.lanes {
            lane.submit(&self.trail, note, &records);
        }
    }

    /// What the witnesses have signed since the last call, for the trail.
    pub(crate) fn take_cosignatures(&self) -> Vec<Cosignature> {
        std::mem::take(&mut *lock(&self.trail.cosignatures))
    }

    /// Whether a witness is being asked: then look again soon.
    pub(crate) fn is_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_waiting(&self.trail))
    }

    /// Waits for what was submitted last, but no longer than this; says of
    /// which witnesses there is no answer. No more is asked after that.
    pub(crate) fn finish(&self, patience: Duration) -> Vec<Cosignature> {
        let deadline = Instant::now() + patience;
        self.lanes.iter().for_each(|lane| lane.hurry(&self.trail));
        let mut cosignatures = lock(&self.trail.cosignatures);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_worth_it = self.lanes.iter().any(|lane| lane.may_answer(&self.trail));
            if left.is_zero() || !is_worth_it {
                break;
            }
            // Looks again by itself: an answer may come between the two locks.
            let pause = left.min(Duration::from_millis(50));
            let waited = self.trail.answered.wait_timeout(cosignatures, pause);
            (cosignatures, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let signed = std::mem::take(&mut *cosignatures);
        drop(cosignatures);
        self.lanes.iter().for_each(|lane| lane.forget(&self.trail));
        signed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
