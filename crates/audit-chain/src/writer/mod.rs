//! Appends to a trail: one writer, whole lines, acknowledged once on disk.

mod store;

#[cfg(test)]
mod tests;

use crate::Counts;
use crate::line::{EncodeError, seal};
use sandtrace_event::{
    AuditEvent, Count, Digest, EventId, EventType, Judged, Observation, SCHEMA_VERSION,
};
use std::io;
use std::path::{Path, PathBuf};
pub(crate) use store::sync_directory_of;
use store::{FileStore, Store};

/// Longest time that a record waits for its group commit, in microseconds.
const GROUP_TIME_US: u64 = 10_000;
/// Bytes of waiting lines that make a commit due at once.
const GROUP_BYTES: usize = 64 * 1024;

/// Whose trail it is; every line says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailIdentity {
    /// The agent, or the sandbox's id where nothing names the agent.
    pub agent_id: String,
    /// The sandbox.
    pub sandbox_id: String,
    /// The trail.
    pub trace_id: String,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The record.
    pub event: AuditEvent,
    /// Its line, line feed included.
    pub line: Vec<u8>,
}

/// Why a trail cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is something at this path already.
    #[error(
        "trail {path} exists; resume is not supported yet; choose another path or move it away"
    )]
    Exists {
        /// Path of the trail.
        path: PathBuf,
    },
    /// The disk, the quota or the file is full. What was acknowledged before
    /// stands; nothing of the failed commit does.
    #[error(
        "trail {path}: no space left for {bytes} more bytes; it ends after {acknowledged} bytes"
    )]
    Full {
        /// Path of the trail.
        path: PathBuf,
        /// Bytes that found no room.
        bytes: usize,
        /// Bytes that are safe on disk.
        acknowledged: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("{doing} trail {path}")]
    Io {
        /// What was being done to the trail.
        doing: &'static str,
        /// Path of the trail.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier commit failed; nothing more can be written to this trail.
    #[error("trail {path}: nothing can be written after an earlier failure")]
    Failed {
        /// Path of the trail.
        path: PathBuf,
    },
    /// This event cannot be a line; the trail can go on without it.
    #[error("trail {path}")]
    Encode {
        /// Path of the trail.
        path: PathBuf,
        /// What is wrong with the event.
        source: EncodeError,
    },
    /// `trail_start` comes first and only there, `trail_end` last.
    #[error("trail {path}: a {event_type} record cannot stand at seq {seq}")]
    OutOfOrder {
        /// Path of the trail.
        path: PathBuf,
        /// Type of the event.
        event_type: EventType,
        /// Where it was to stand.
        seq: u64,
    },
}

/// Writes a new trail.
///
/// [`append`](Self::append) only buffers. A record is acknowledged when the
/// [`commit`](Self::commit) after it returns `Ok`; dropping the writer
/// forgets what was not. A trail to which nothing was ever committed leaves
/// no file.
pub struct TrailWriter {
    path: PathBuf,
    store: Box<dyn Store>,
    identity: TrailIdentity,
    /// Lines that wait for the commit.
    waiting: Vec<u8>,
    /// Clock of the first of them.
    waiting_since_us: Option<u64>,
    acknowledged: u64,
    head: Option<Head>,
    counts: Counts,
    failed: bool,
}

impl TrailWriter {
    /// Makes the file (mode 0600), locks it, and makes its name durable.
    ///
    /// # Errors
    /// [`WriteError::Exists`] where the path is taken, else [`WriteError::Io`].
    pub fn create(path: &Path, identity: TrailIdentity) -> Result<Self, WriteError> {
        let store = FileStore::create(path)?;
        Ok(Self::over(Box::new(store), path, identity))
    }

    fn over(store: Box<dyn Store>, path: &Path, identity: TrailIdentity) -> Self {
        Self {
            path: path.to_owned(),
            store,
            identity,
            waiting: Vec::new(),
            waiting_since_us: None,
            acknowledged: 0,
            head: None,
            counts: Counts::default(),
            failed: false,
        }
    }

    /// Chains an event and buffers its line. `at_commit_clock_us` is the
    /// moment on the clock that [`commit_due`](Self::commit_due) will be asked
    /// with.
    ///
    /// # Errors
    /// The event has no line, stands at the wrong place, or an earlier commit
    /// failed; the trail is unchanged then.
    pub fn append(
        &mut self,
        judged: &Judged,
        at_commit_clock_us: u64,
    ) -> Result<Sealed, WriteError> {
        self.check_usable()?;
        let seq = self.head.map_or(1, |head| head.seq + 1);
        self.check_order(judged.observation.payload.event_type(), seq)?;
        let mut event = self.event(judged, seq);
        let line = seal(&mut event).map_err(|source| WriteError::Encode {
            path: self.path.clone(),
            source,
        })?;
        self.waiting.extend_from_slice(&line);
        self.waiting_since_us.get_or_insert(at_commit_clock_us);
        self.head = Some(Head {
            seq,
            record_hash: event.record_hash,
        });
        let verdict = event.verdict.as_ref().map(|verdict| verdict.result);
        self.counts.add(event.event_type, verdict);
        Ok(Sealed { event, line })
    }

    fn check_usable(&self) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::Failed {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn check_order(&self, event_type: EventType, seq: u64) -> Result<(), WriteError> {
        let is_start = event_type == EventType::TrailStart;
        let has_ended = self.counts.of_type(EventType::TrailEnd) > 0;
        if is_start == (seq == 1) && !has_ended {
            return Ok(());
        }
        Err(WriteError::OutOfOrder {
            path: self.path.clone(),
            event_type,
            seq,
        })
    }

    fn event(&self, judged: &Judged, seq: u64) -> AuditEvent {
        let Observation { at, payload, tier } = &judged.observation;
        let identity = &self.identity;
        AuditEvent {
            agent_id: identity.agent_id.clone(),
            event_id: EventId::new(at.wall.as_millis(), identity.nonce, seq),
            event_type: payload.event_type(),
            evidence_tier: *tier,
            mono_us: Count(at.mono_us),
            payload: payload.clone(),
            prev_hash: self.head.map(|head| head.record_hash),
            record_hash: Digest([0; 32]),
            sandbox_id: identity.sandbox_id.clone(),
            schema_version: SCHEMA_VERSION.to_owned(),
            seq: Count(seq),
            trace_id: identity.trace_id.clone(),
            verdict: judged.verdict.clone(),
            wall_time: at.wall,
        }
    }

    /// Whether the waiting lines must not wait any longer.
    #[must_use]
    pub fn commit_due(&self, now_us: u64) -> bool {
        self.waiting.len() >= GROUP_BYTES
            || self
                .commit_deadline_us()
                .is_some_and(|deadline| now_us >= deadline)
    }

    /// When [`commit`](Self::commit) is due at the latest; `None` while no
    /// line waits.
    #[must_use]
    pub fn commit_deadline_us(&self) -> Option<u64> {
        self.waiting_since_us
            .map(|since| since.saturating_add(GROUP_TIME_US))
    }

    /// Writes the waiting lines and makes them durable: when this returns
    /// `Ok` they are acknowledged.
    ///
    /// # Errors
    /// [`WriteError::Full`] or [`WriteError::Io`]. The trail then ends with
    /// the last acknowledged line, or, where only the fdatasync failed, with
    /// whole lines of which nobody knows whether they are durable. Nothing
    /// more can be written to it.
    pub fn commit(&mut self) -> Result<(), WriteError> {
        self.check_usable()?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.write_waiting().inspect_err(|_| self.failed = true)?;
        self.acknowledged += u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        self.waiting.clear();
        self.waiting_since_us = None;
        Ok(())
    }

    fn write_waiting(&mut self) -> Result<(), WriteError> {
        let mut rest = self.waiting.as_slice();
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
        match self.store.sync() {
            Ok(()) => Ok(()),
            Err(source) if is_full(&source) => {
                self.take_back()?;
                Err(self.failure("writing to", source))
            }
            // Nobody knows what is on disk now, so nothing more is changed.
            Err(source) => Err(self.failure("fdatasync of", source)),
        }
    }

    /// Leaves nothing of a commit that failed half-way.
    fn take_back(&mut self) -> Result<(), WriteError> {
        self.store
            .truncate(self.acknowledged)
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
                bytes: self.waiting.len(),
                acknowledged: self.acknowledged,
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
        self.head
    }

    /// The records that were appended, as the next `trail_end` must state them.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Path of the trail as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
