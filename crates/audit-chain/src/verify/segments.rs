//! Where one file of a trail ends and the next begins.

use super::fault::FaultKind;
use super::signed::Place;
use sandtrace_event::{Digest, EventType, SegmentCause, SegmentEnd, SegmentStart};

/// The segments up to here.
#[derive(Default)]
pub(super) struct Segments {
    /// `segment_start` records.
    started: u64,
    /// Why the segment before ended, if it said so.
    ended: Option<SegmentCause>,
}

impl Segments {
    pub(super) fn count(&self) -> u64 {
        self.started + 1
    }

    pub(super) fn end(&mut self, end: &SegmentEnd, place: &Place<'_>) -> Result<(), FaultKind> {
        self.check(end.number.0, self.count(), end.size.0, &end.root, place)?;
        self.ended = Some(end.cause);
        Ok(())
    }

    pub(super) fn start(
        &mut self,
        start: &SegmentStart,
        origin: Option<&str>,
        place: &Place<'_>,
    ) -> Result<(), FaultKind> {
        let next = self.count() + 1;
        self.check(start.number.0, next, start.size.0, &start.root, place)?;
        let ended = self.ended.take();
        let is_after_end = place.before == Some(EventType::SegmentEnd);
        let fits = match start.cause {
            SegmentCause::SyncFailed => !is_after_end,
            cause => is_after_end && ended == Some(cause),
        };
        if !fits {
            Err(FaultKind::Segment(
                "a segment_start gives another cause than the segment_end before it",
            ))
        } else if origin != Some(start.origin.as_str()) {
            Err(FaultKind::Segment("the segment is of another trail"))
        } else {
            self.started += 1;
            Ok(())
        }
    }

    fn check(
        &self,
        number: u64,
        expected: u64,
        size: u64,
        root: &Digest,
        place: &Place<'_>,
    ) -> Result<(), FaultKind> {
        if number != expected {
            Err(FaultKind::Segment("its number is not the next one"))
        } else if size != place.records {
            Err(FaultKind::Segment(
                "size is not the number of records before it",
            ))
        } else if place.tree.root() != Some(*root) {
            Err(FaultKind::Segment(
                "root is not that of the records before it",
            ))
        } else {
            Ok(())
        }
    }
}
