//! Records and their lines, in one piece of memory for all.

use super::Sealed;
use crate::line::{EncodeError, seal};
use sandtrace_event::AuditEvent;

/// Records in their final form, in the order of the trail. Of those that
/// [`commit`](super::TrailWriter::commit) gives back sinks may hear.
#[derive(Debug, Default)]
pub struct Batch {
    /// The lines of `events`, and then of one that is not among them yet.
    lines: Vec<u8>,
    /// Each with the place where its line ends.
    events: Vec<(AuditEvent, usize)>,
}

impl Batch {
    /// Every record with its line.
    pub fn iter(&self) -> impl Iterator<Item = Sealed<'_>> {
        let starts = self.events.iter().map(|(_, end)| *end);
        std::iter::once(0)
            .chain(starts)
            .zip(&self.events)
            .map(|(start, (event, end))| self.sealed(start, event, *end))
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds the records that follow.
    pub fn append(&mut self, mut next: Self) {
        let before = self.lines.len();
        self.lines.append(&mut next.lines);
        let moved = next.events.into_iter();
        self.events
            .extend(moved.map(|(event, end)| (event, before + end)));
    }

    /// None, in the same memory.
    pub(super) fn emptied(mut self) -> Self {
        self.lines.clear();
        self.events.clear();
        self
    }

    /// The lines of all records.
    pub(super) fn lines(&self) -> &[u8] {
        self.lines.get(..self.end()).unwrap_or_default()
    }

    /// Writes the line of an event that [`push`](Self::push) then adds, in
    /// place of one that was written and not added.
    pub(super) fn write(&mut self, event: &mut AuditEvent) -> Result<(), EncodeError> {
        self.lines.truncate(self.end());
        seal(event, &mut self.lines)
    }

    /// Adds an event whose line was written.
    pub(super) fn push(&mut self, event: AuditEvent) -> Sealed<'_> {
        let (start, end) = (self.end(), self.lines.len());
        let (event, _) = self.events.push_mut((event, end));
        let line = self.lines.get(start..end).unwrap_or_default();
        Sealed { event, line }
    }

    /// The first record.
    pub(super) fn first(&self) -> Option<&AuditEvent> {
        self.events.first().map(|(event, _)| event)
    }

    /// The records without their lines.
    pub(super) fn into_events(self) -> impl Iterator<Item = AuditEvent> {
        self.events.into_iter().map(|(event, _)| event)
    }

    fn end(&self) -> usize {
        self.events.last().map_or(0, |(_, end)| *end)
    }

    fn sealed<'a>(&'a self, start: usize, event: &'a AuditEvent, end: usize) -> Sealed<'a> {
        let line = self.lines.get(start..end).unwrap_or_default();
        Sealed { event, line }
    }
}
