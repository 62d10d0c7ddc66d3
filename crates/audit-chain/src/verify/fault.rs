//! What can be wrong with a trail.

use crate::jcs::Flaw;
use crate::line::MAX_LINE;
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

    /// A record that only a signed trail has, in one that is not signed, or
    /// a new session without a key in one that is.
    #[error("{0}")]
    Unsigned(&'static str),
    /// Nobody vouches for the key of the trail.
    #[error("the trail's key is not vouched for: {0}")]
    Certificate(String),
    /// A checkpoint that the trail's key did not sign, or not of this trail.
    #[error("the checkpoint is wrong: {0}")]
    Checkpoint(String),
    /// A checkpoint of another number of records than are before it.
    #[error("the checkpoint speaks of {stated} records, {actual} are before it")]
    CheckpointSize {
        /// What the checkpoint says.
        stated: u64,
        /// What there is.
        actual: u64,
    },
    /// The records before a checkpoint are not those that were signed.
    #[error(
        "the checkpoint was signed over other records: its root is {stated}, theirs {computed}"
    )]
    CheckpointRoot {
        /// What the checkpoint says.
        stated: Digest,
        /// What the records give.
        computed: Digest,
    },
    /// A witness did not sign what is said, or no checkpoint of this trail.
    #[error("the cosignature is wrong: {0}")]
    Cosignature(String),
    /// A session that does not begin where the one before stopped.
    #[error("the session does not go on from here: {0}")]
    Session(&'static str),
    /// A segment that does not end or begin here.
    #[error("the segments do not fit: {0}")]
    Segment(&'static str),
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
            | Self::Totals
            | Self::Unsigned(_)
            | Self::Certificate(_)
            | Self::Checkpoint(_)
            | Self::CheckpointSize { .. }
            | Self::CheckpointRoot { .. }
            | Self::Cosignature(_)
            | Self::Session(_)
            | Self::Segment(_) => false,
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
            Self::Unsigned(_) => "unsigned",
            Self::Certificate(_) => "certificate",
            Self::Checkpoint(_) => "checkpoint",
            Self::CheckpointSize { .. } => "checkpoint_size",
            Self::CheckpointRoot { .. } => "checkpoint_root",
            Self::Cosignature(_) => "cosignature",
            Self::Session(_) => "session",
            Self::Segment(_) => "segment",
        }
    }
}
