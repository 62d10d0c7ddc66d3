//! What can be wrong with a trail.

use crate::jcs::Flaw;
use crate::line::MAX_LINE;
use crate::merkle::NotAdjacent;
use sandtrace_event::{Digest, SCHEMA_VERSION};

/// The first thing that is wrong with a trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, byte {byte_offset}: {what}")]
pub struct Fault {
    /// `seq` as the record states it, where that could be read.
    pub seq: Option<u64>,
    /// Offset in the trail: of the first bad byte where the line is
    /// malformed, of the line otherwise.
    pub byte_offset: u64,
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: FaultKind,
}

/// A way in which a line is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The line is longer than [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not canonical JSON.
    #[error("not canonical JSON: {0}")]
    NotCanonical(Flaw),
    /// Canonical JSON, but not the members of a record of this schema version.
    #[error("member `{0}` is missing or is not what schema version {SCHEMA_VERSION} says")]
    Member(&'static str),
    /// The payload of a record that the verifier itself needs cannot be read.
    #[error("payload cannot be read: {0}")]
    Payload(String),

    /// The record was changed after it was written.
    #[error("record_hash says {stated}, the record's bytes give {computed}")]
    RecordHash {
        /// What the line says.
        stated: String,
        /// What its bytes give.
        computed: Digest,
    },
    /// Records are missing, repeated or out of order.
    #[error("seq is {found} where {expected} belongs")]
    Seq {
        /// One more than in the line before; 1 in the first.
        expected: u64,
        /// What the line says.
        found: u64,
    },
    /// The record does not follow the one in front of it.
    #[error("prev_hash is not the record_hash of the line before")]
    PrevHash,
    /// The record belongs to another agent, sandbox or trace.
    #[error("{0} is not that of the first record")]
    Identity(&'static str),
    /// The first record is no `trail_start`.
    #[error("the first record is not a trail_start")]
    NoStart,
    /// A `trail_start` that is not the first record.
    #[error("a second trail_start")]
    SecondStart,
    /// Something stands after `trail_end`.
    #[error("something follows the trail_end")]
    AfterEnd,
    /// `trail_end` counts other records than the trail holds.
    #[error("trail_end does not count the records that are there")]
    Totals,
}

impl From<NotAdjacent> for FaultKind {
    fn from(NotAdjacent { end, begin }: NotAdjacent) -> Self {
        Self::Seq {
            expected: end.saturating_add(1),
            found: begin.saturating_add(1),
        }
    }
}

impl FaultKind {
    /// Whether the bytes are no trail at all (true), or a trail that somebody
    /// changed (false).
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::TooLong | Self::NotCanonical(_) | Self::Member(_) | Self::Payload(_) => true,
            Self::RecordHash { .. }
            | Self::Seq { .. }
            | Self::PrevHash
            | Self::Identity(_)
            | Self::NoStart
            | Self::SecondStart
            | Self::AfterEnd
            | Self::Totals => false,
        }
    }

    /// A stable word for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "line_too_long",
            Self::NotCanonical(_) => "not_canonical",
            Self::Member(_) => "member",
            Self::Payload(_) => "payload",
            Self::RecordHash { .. } => "record_hash",
            Self::Seq { .. } => "seq",
            Self::PrevHash => "prev_hash",
            Self::Identity(_) => "identity",
            Self::NoStart => "no_start",
            Self::SecondStart => "second_start",
            Self::AfterEnd => "after_end",
            Self::Totals => "totals",
        }
    }
}
