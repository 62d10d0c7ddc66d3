//! Appends to a trail: one writer, whole lines, acknowledged once on disk,
//! signed once durable.

mod batch;
mod error;
mod oversize;
mod progress;
mod resume;
mod segment;
mod signer;
mod store;
mod upkeep;

#[cfg(test)]
mod tests;

pub use error::{SignError, WriteError};
pub use resume::{Existing, Resumed};
pub use segment::SegmentLimits;
pub use signer::{CHECKPOINT_RECORDS, TrailSigner};
pub(crate) use store::sync_directory_of;

use crate::Counts;
use crate::line::EncodeError;
pub use batch::Batch;
use progress::Progress;
use sandtrace_event::{
    AuditEvent, Count, Digest, EventId, EventType, Judged, Observation, Payload, SCHEMA_VERSION,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{FileStore, Store};

/// Longest time that a record waits for its group commit, in microseconds.
const GROUP_TIME_US: u64 = 10_000;
/// Bytes of waiting lines that make a commit due at once.
const GROUP_BYTES: usize = 64 * 1024;
/// Bytes that may wait while more events are there already: each commit costs
/// one fdatasync, whatever its size.
const BACKLOG_BYTES: usize = 1024 * 1024;

/// Whose trail it is; every line says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailIdentity {
    /// The agent, or the sandbox's id where nothing names the agent.
    pub agent_id: Arc<str>,
    /// The sandbox.
    pub sandbox_id: Arc<str>,
    /// The trail.
    pub trace_id: Arc<str>,
    /// Random number that sets this trail apart from all others.
    pub nonce: u64,
}

/// The last record of a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub record_hash: Digest,
}

/// A record in its final form. Sinks may have it once it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The record.
    pub event: &'a AuditEvent,
    /// Its line, line feed included.
    pub line: &'a [u8],
}

/// Writes a trail.
///
/// [`append`](Self::append) only buffers. A record is acknowledged when the
/// [`commit`](Self::commit) after it gives it back; dropping the writer
/// forgets what was not. A trail to which nothing was ever committed leaves
/// no file. A writer with a [`TrailSigner`] needs its
/// [`upkeep`](Self::upkeep) after every commit, and a
/// [`seal`](Self::seal) after the `trail_end`.
pub struct TrailWriter {
    /// Path of the first segment.
    path: PathBuf,
    store: Box<dyn Store>,
    identity: TrailIdentity,
    signer: Option<TrailSigner>,
    /// As the `trail_start` states it.
    origin: String,
    segment: segment::Segment,
    limits: SegmentLimits,
    checkpoint_file: upkeep::CheckpointFile,
    batch: Batch,
    /// Clock of the first record in it.
    batch_since_us: Option<u64>,
    /// With everything in the batch.
    appended: Progress,
    /// Without it.
    durable: Progress,
    failed: bool,
}

impl TrailWriter {
    /// Makes the file (mode 0600), locks it, and makes its name durable.
    /// Nobody signs this trail.
    ///
    /// # Errors
    /// [`WriteError::Exists`] where the path is taken, else [`WriteError::Io`].
    pub fn create(path: &Path, identity: TrailIdentity) -> Result<Self, WriteError> {
        let store = FileStore::create(path)?;
        Ok(Self::over(Box::new(store), path, identity, None))
    }

    /// Like [`create`](Self::create), of a trail that `signer` signs.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_signed(
        path: &Path,
        identity: TrailIdentity,
        signer: TrailSigner,
    ) -> Result<Self, WriteError> {
        let store = FileStore::create(path)?;
        Ok(Self::over(Box::new(store), path, identity, Some(signer)))
    }

    fn over(
        store: Box<dyn Store>,
        path: &Path,
        identity: TrailIdentity,
        signer: Option<TrailSigner>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            store,
            identity,
            signer,
            origin: String::new(),
            segment: segment::Segment::first(),
            limits: SegmentLimits::default(),
            checkpoint_file: upkeep::CheckpointFile::default(),
            batch: Batch::default(),
            batch_since_us: None,
            appended: Progress::default(),
            durable: Progress::default(),
            failed: false,
        }
    }

    /// Begins a new file when one is larger or older than this.
    #[must_use]
    pub fn with_segments(mut self, limits: SegmentLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Chains an event and buffers its line. `now_us` is the moment on the
    /// clock that [`commit_due`](Self::commit_due) will be asked with. A
    /// `trail_start` or `session_start` gets the signer's key.
    ///
    /// # Errors
    /// The event has no line, stands at the wrong place, or an earlier commit
    /// failed; the trail is unchanged then.
    pub fn append(&mut self, judged: Judged, now_us: u64) -> Result<Sealed<'_>, WriteError> {
        self.check_usable()?;
        let seq = self.appended.next_seq();
        let event_type = judged.observation.payload.event_type();
        if !self.appended.allows(event_type) {
            return Err(WriteError::OutOfOrder {
                path: self.path.clone(),
                event_type,
                seq,
            });
        }
        let mut event = self.event(judged, seq);
        self.line(&mut event)?;
        self.batch_since_us.get_or_insert(now_us);
        self.segment.opened_us.get_or_insert(now_us);
        self.appended.add(&event);
        if let Payload::TrailStart(start) = &event.payload {
            self.origin.clone_from(&start.origin);
        }
        if let Some(signer) = &mut self.signer {
            let verdict = event.verdict.as_ref().map(|verdict| verdict.result);
            signer.note_record(event.event_type, verdict, now_us);
        }
        Ok(self.batch.push(event))
    }

    /// Buffers the event's line; one that is too long becomes a gap.
    fn line(&mut self, event: &mut AuditEvent) -> Result<(), WriteError> {
        let mut sealed = self.batch.write(event);
        if let Err(EncodeError::TooLong { bytes, .. }) = sealed
            && let Some(gap) = oversize::gap(event, bytes)
        {
            *event = gap;
            sealed = self.batch.write(event);
        }
        sealed.map_err(|source| WriteError::Encode {
            path: self.path.clone(),
            source,
        })
    }

    fn check_usable(&self) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::Failed {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn event(&self, judged: Judged, seq: u64) -> AuditEvent {
        let Observation {
            at,
            mut payload,
            tier,
        } = judged.observation;
        let identity = &self.identity;
        if let Some(signer) = &self.signer {
            declare(&mut payload, signer);
        }
        AuditEvent {
            agent_id: Arc::clone(&identity.agent_id),
            event_id: EventId::new(at.wall.as_millis(), identity.nonce, seq),
            event_type: payload.event_type(),
            evidence_tier: tier,
            mono_us: Count(at.mono_us),
            payload,
            prev_hash: self.appended.head.map(|head| head.record_hash),
            record_hash: Digest([0; 32]),
            sandbox_id: Arc::clone(&identity.sandbox_id),
            schema_version: SCHEMA_VERSION,
            seq: Count(seq),
            trace_id: Arc::clone(&identity.trace_id),
            verdict: judged.verdict,
            wall_time: at.wall,
        }
    }

    /// Whether the waiting lines should be committed if nothing else is to be
    /// appended at once.
    #[must_use]
    pub fn commit_due(&self, now_us: u64) -> bool {
        self.batch.lines().len() >= GROUP_BYTES || self.commit_overdue(now_us)
    }

    /// Whether the waiting lines must not wait any longer, not even for events
    /// that are there already.
    #[must_use]
    pub fn commit_overdue(&self, now_us: u64) -> bool {
        let unsigned = self.signer.as_ref().is_some_and(TrailSigner::is_full);
        let waits = !self.batch.is_empty();
        let late = self
            .commit_deadline_us()
            .is_some_and(|deadline| now_us >= deadline);
        late || waits && (unsigned || self.batch.lines().len() >= BACKLOG_BYTES)
    }

    /// When [`commit`](Self::commit) is due at the latest; `None` while no
    /// line waits.
    #[must_use]
    pub fn commit_deadline_us(&self) -> Option<u64> {
        let since = self.batch_since_us;
        since.map(|since| since.saturating_add(GROUP_TIME_US))
    }

    /// Writes the waiting lines and makes them durable: what this gives back
    /// is acknowledged.
    ///
    /// Where the file cannot be made durable the records go into a new one,
    /// with other numbers.
    ///
    /// # Errors
    /// [`WriteError::Full`] or [`WriteError::Io`]. The trail then ends with
    /// the last acknowledged line, or with whole lines of which nobody knows
    /// whether they are durable. Nothing more can be written to it.
    pub fn commit(&mut self) -> Result<Batch, WriteError> {
        self.check_usable()?;
        if self.batch.is_empty() {
            return Ok(Batch::default());
        }
        self.write_batch().inspect_err(|_| self.failed = true)?;
        let length = u64::try_from(self.batch.lines().len()).unwrap_or(u64::MAX);
        self.segment.bytes = self.segment.bytes.saturating_add(length);
        let since = self.batch_since_us.take();
        self.durable = self.appended.clone();
        let records = std::mem::take(&mut self.batch);
        if let Some(signer) = &mut self.signer {
            signer.hand_over(since.unwrap_or(0));
        }
        Ok(records)
    }

    /// Takes back the memory of what [`commit`](Self::commit) gave, for the next:
    /// a megabyte that is asked of the system for each commit and given back is
    /// much of what a commit costs.
    pub fn reuse(&mut self, acknowledged: Batch) {
        if self.batch.is_empty() {
            self.batch = acknowledged.emptied();
        }
    }

    fn write_batch(&mut self) -> Result<(), WriteError> {
        self.write_lines()?;
        match self.store.sync() {
            Ok(()) => Ok(()),
            Err(source) if is_full(&source) => {
                self.take_back()?;
                Err(self.failure("writing to", source))
            }
            Err(source) => self.start_over(source),
        }
    }

    fn write_lines(&mut self) -> Result<(), WriteError> {
        let mut rest = self.batch.lines();
        while !rest.is_empty() {
            let written = match self.store.write(rest) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                other => other,
            };
            match written {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(source) => {
                    self.take_back()?;
                    return Err(self.failure("writing to", source));
                }
            }
        }
        Ok(())
    }

    /// Leaves nothing of a commit that failed half-way.
    fn take_back(&mut self) -> Result<(), WriteError> {
        self.store
            .truncate(self.segment.bytes)
            .and_then(|()| self.store.sync())
            .map_err(|source| WriteError::Io {
                doing: "taking back a partial write to",
                path: self.path.clone(),
                source,
            })
    }

    fn failure(&self, doing: &'static str, source: io::Error) -> WriteError {
        let path = self.path.clone();
        if is_full(&source) {
            WriteError::Full {
                path,
                bytes: self.batch.lines().len(),
                acknowledged: self.segment.bytes,
                source,
            }
        } else {
            WriteError::Io {
                doing,
                path,
                source,
            }
        }
    }

    /// The last record that was appended, committed or not.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.appended.head
    }

    /// The records that were appended, as the next `trail_end` must state them.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.appended.counts
    }

    /// Path of the trail as it was given: that of its first segment.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose trail it is.
    #[must_use]
    pub fn identity(&self) -> &TrailIdentity {
        &self.identity
    }
}

/// The writer knows who signs and how often.
fn declare(payload: &mut Payload, signer: &TrailSigner) {
    match payload {
        Payload::TrailStart(start) => {
            start.key = Some(signer.declared().clone());
            start.cadence = Some(signer::cadence());
        }
        Payload::SessionStart(session) => session.key = Some(signer.declared().clone()),
        _ => {}
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// A control record, judged by nobody.
fn control(at: sandtrace_event::Timestamp, payload: impl Into<Payload>) -> Judged {
    Judged {
        observation: Observation {
            at,
            payload: payload.into(),
            tier: sandtrace_event::EvidenceTier::Hypervisor,
        },
        verdict: None,
    }
}

/// Types of records that a writer makes itself and can make again.
fn is_of_the_writer(event_type: EventType) -> bool {
    matches!(
        event_type,
        EventType::Checkpoint
            | EventType::KeyRotate
            | EventType::SegmentEnd
            | EventType::SegmentStart
    )
}
