//! From one file of a trail to the next.

use super::{Batch, TrailWriter, WriteError, control, is_of_the_writer};
use crate::segments;
use sandtrace_event::{Count, Judged, Payload, SegmentCause, SegmentEnd, SegmentStart, Timestamp};
use std::io;

/// When a trail goes on in a new file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Bytes of a file after which the next one begins.
    pub bytes: Option<u64>,
    /// Microseconds after its first record.
    pub age_us: Option<u64>,
}

/// The file that is being written.
pub(super) struct Segment {
    /// From 1.
    pub(super) number: u64,
    /// Bytes that are safe in it.
    pub(super) bytes: u64,
    pub(super) opened_us: Option<u64>,
}

impl Segment {
    pub(super) fn first() -> Self {
        Self::numbered(1)
    }

    fn numbered(number: u64) -> Self {
        Self {
            number,
            bytes: 0,
            opened_us: None,
        }
    }

    fn cause_to_end(&self, limits: SegmentLimits, now_us: u64) -> Option<SegmentCause> {
        let age = now_us.saturating_sub(self.opened_us.unwrap_or(now_us));
        if limits.bytes.is_some_and(|limit| self.bytes >= limit) {
            Some(SegmentCause::Size)
        } else if limits.age_us.is_some_and(|limit| age >= limit) {
            Some(SegmentCause::Age)
        } else {
            None
        }
    }
}

impl TrailWriter {
    /// Ends the file that is large or old enough, and begins the next one.
    /// Gives back what was acknowledged meanwhile.
    pub(super) fn rotate_segment(
        &mut self,
        at: Timestamp,
        now_us: u64,
    ) -> Result<Batch, WriteError> {
        let Some(cause) = self.segment.cause_to_end(self.limits, now_us) else {
            return Ok(Batch::default());
        };
        let number = self.segment.number;
        let (size, root) = self.appended.tree_head();
        let end = SegmentEnd {
            cause,
            number: Count(number),
            root,
            size: Count(size),
        };
        self.append(control(at, end), now_us)?;
        let acknowledged = self.commit()?;
        // A commit that failed to become durable has begun the next one itself.
        if self.segment.number == number {
            self.open_next(cause, at, now_us)
                .inspect_err(|_| self.failed = true)?;
        }
        Ok(acknowledged)
    }

    /// Makes the next file and appends its first record.
    pub(super) fn open_next(
        &mut self,
        cause: SegmentCause,
        at: Timestamp,
        now_us: u64,
    ) -> Result<(), WriteError> {
        let number = self.segment.number.saturating_add(1);
        let path = segments::path_of(&self.path, number);
        self.store
            .next_segment(&path)
            .map_err(|source| WriteError::Io {
                doing: "beginning the next segment of",
                path,
                source,
            })?;
        self.segment = Segment::numbered(number);
        let (size, root) = self.appended.tree_head();
        let start = SegmentStart {
            cause,
            number: Count(number),
            origin: self.origin.clone(),
            root,
            size: Count(size),
        };
        self.append(control(at, start), now_us)?;
        Ok(())
    }

    /// Leaves only what was acknowledged in a file that cannot be synced.
    fn give_up_file(&mut self) -> Result<(), WriteError> {
        if self.segment.bytes > 0 {
            // Where even this fails, a reader knows what to leave out: the next
            // segment begins before it.
            let _ = self.store.truncate(self.segment.bytes);
            return Ok(());
        }
        // Nothing of it counts: another file takes its name and number.
        let path = segments::path_of(&self.path, self.segment.number);
        self.segment.number = self.segment.number.saturating_sub(1);
        self.store.discard(&path).map_err(|source| WriteError::Io {
            doing: "removing the unused segment of",
            path,
            source,
        })
    }

    /// Nobody knows what of the last batch is on disk, and asking again would
    /// only hide that (a second fsync of the same file may well say yes): the
    /// batch goes into a new file.
    pub(super) fn start_over(&mut self, source: io::Error) -> Result<(), WriteError> {
        let batch = std::mem::take(&mut self.batch);
        let first = batch.first().map(|event| event.observation().at);
        let goes_on = self.durable.head.is_some() && !self.durable.has_ended();
        let Some(at) = first.filter(|_| goes_on) else {
            // There is no trail yet that could go on, or none any more.
            return Err(self.failure("fdatasync of", source));
        };
        let cause = match batch.first().map(|event| &event.payload) {
            // The file before ended in order, and still does.
            Some(Payload::SegmentStart(start)) => start.cause,
            _ => SegmentCause::SyncFailed,
        };
        self.give_up_file()?;
        self.appended = self.durable.clone();
        if let Some(signer) = &mut self.signer {
            signer.sign_again();
        }
        let now_us = self.batch_since_us.take().unwrap_or(0);
        self.open_next(cause, at, now_us)?;
        for event in batch.into_events() {
            if is_of_the_writer(event.event_type) {
                continue;
            }
            let mut observation = event.observation();
            if let Payload::TrailEnd(end) = &mut observation.payload {
                end.events = self.counts().events();
                end.verdicts = self.counts().verdicts();
            }
            let judged = Judged {
                observation,
                verdict: event.verdict,
            };
            self.append(judged, now_us)?;
        }
        self.write_lines()?;
        self.store
            .sync()
            .map_err(|source| self.failure("fdatasync of the next segment of", source))
    }
}
