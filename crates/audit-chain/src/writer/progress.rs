//! How far a trail is.

use super::Head;
use crate::Counts;
use crate::merkle::CompactRange;
use sandtrace_event::{AuditEvent, Digest, EventType};

/// What the next record follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) head: Option<Head>,
    pub(super) counts: Counts,
    pub(super) tree: CompactRange,
}

impl Progress {
    /// Number of the next record.
    pub(super) fn next_seq(&self) -> u64 {
        self.head.map_or(1, |head| head.seq.saturating_add(1))
    }

    /// Number of records, and the root of the tree over them.
    pub(super) fn tree_head(&self) -> (u64, Digest) {
        // The tree of a writer always begins at its first record.
        let root = self.tree.root().unwrap_or(Digest([0; 32]));
        (self.tree.end(), root)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.counts.of_type(EventType::TrailEnd) > 0
    }

    /// Whether an event of this type may come next. After the end only what
    /// seals and witnesses it may.
    pub(super) fn allows(&self, next: EventType) -> bool {
        let is_start = next == EventType::TrailStart;
        let seals = matches!(next, EventType::Checkpoint | EventType::Cosignature);
        is_start == self.head.is_none() && (!self.has_ended() || seals)
    }

    pub(super) fn add(&mut self, event: &AuditEvent) {
        self.head = Some(Head {
            seq: event.seq.0,
            record_hash: event.record_hash,
        });
        let verdict = event.verdict.as_ref().map(|verdict| verdict.result);
        self.counts.add(event.event_type, verdict);
        self.tree.push_record(&event.record_hash);
    }
}
