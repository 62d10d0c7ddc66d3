//! What a trail proves, in the words of [`super::verify()`].

use super::Fault;
use crate::Counts;
use crate::merkle::CompactRange;
use crate::note::VerifierKey;
use sandtrace_event::{Digest, GapUnit, TrailEnd, TrailStart, WallTime};
use std::collections::BTreeMap;

/// What a trail proves about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The answer.
    pub outcome: Outcome,
    /// Records before the first fault.
    pub records: u64,
    /// Bytes of these records with their line feeds.
    pub bytes: u64,
    /// Bytes after the last line feed, where the trail merely stops there.
    pub partial_bytes: u64,
    /// Whose trail it is, by its first record.
    pub identity: Option<Identity>,
    /// First good record.
    pub first: Option<Mark>,
    /// Last good record.
    pub last: Option<Mark>,
    /// Good records of each kind.
    pub counts: Counts,
    /// What the `capture_gap` records say was lost, per unit.
    pub lost: BTreeMap<GapUnit, u64>,
    /// Payload of the first record.
    pub start: Option<TrailStart>,
    /// Payload of the `trail_end`, where the trail ended in order.
    pub end: Option<TrailEnd>,
    /// Sessions: one, and one more for each `session_start`.
    pub sessions: u64,
    /// Segments: one, and one more for each `segment_start`.
    pub segments: u64,
    /// The Merkle tree over the records before the first fault.
    pub tree: CompactRange,
    /// Who signed, where the trail is signed at all.
    pub signatures: Option<Signatures>,
    /// The state at the size that [`super::VerifyOptions::root_at`] asks for,
    /// where the trail has so many records.
    pub at: Option<StateAt>,
}

/// The answer of [`super::verify()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every record is as it was written and none is missing in between.
    Intact {
        /// The trail ends with `trail_end` and, where it is signed, with a
        /// checkpoint over it; false only for a live one.
        sealed: bool,
    },
    /// Somebody changed the trail.
    Tampered(Fault),
    /// These bytes are no trail.
    Malformed(Fault),
    /// What is there is intact, but the trail has no end.
    Incomplete(Incomplete),
    /// There is nothing at all, which proves nothing.
    Empty,
}

/// Where a trail stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// After a whole record that is no `trail_end`.
    #[error("the trail stops without a trail_end")]
    NoEnd,
    /// After the `trail_end`, where a checkpoint over it belongs.
    #[error("the trail_end is not sealed by a checkpoint")]
    NoSeal,
    /// After a `segment_end`: the next file is not there.
    #[error("the trail goes on in another segment, which is missing")]
    NoSegment,
    /// Inside of a line.
    #[error(
        "line {line}, byte {byte_offset}: the trail stops inside of a line after {bytes} bytes"
    )]
    CutOff {
        /// Where the partial line begins.
        byte_offset: u64,
        /// How much of it there is.
        bytes: u64,
        /// Number of the line, from 1.
        line: u64,
    },
}

/// Whose trail it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The agent.
    pub agent_id: String,
    /// The sandbox.
    pub sandbox_id: String,
    /// The trail.
    pub trace_id: String,
}

/// One record of the trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub record_hash: Digest,
    /// Its time; absent where the text is of the right shape but no time.
    pub wall_time: Option<WallTime>,
}

/// Who signed a trail, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// The log that the trail says it is.
    pub origin: String,
    /// The key that signed last.
    pub key: VerifierKey,
    /// How many keys there were, one after the other.
    pub keys: u64,
    /// The hosts' keys that vouch for the trail's, the first 64 of them.
    pub hosts: Vec<HostKey>,
    /// Whether pinned keys vouch for all of the trail's keys.
    pub all_pinned: bool,
    /// Most records that may follow the last checkpoint: what `cadence`
    /// promises, once more for each session since then.
    pub allowed: u64,
    /// Checkpoints, all of them right.
    pub checkpoints: u64,
    /// The newest one.
    pub last_checkpoint: Option<TrustedCheckpoint>,
    /// Records after it that are neither checkpoints nor cosignatures nor
    /// about keys or segments: no signature says that they are there.
    pub unattested: u64,
    /// Checkpoints that known witnesses have cosigned, the newest first, of
    /// the last 1,024.
    pub cosigned: Vec<CosignedSize>,
}

impl Signatures {
    /// Whether checkpoints speak of all records but those of one cadence.
    #[must_use]
    pub fn covers_all_but_a_cadence(&self) -> bool {
        self.last_checkpoint.is_some() && self.unattested <= self.allowed
    }
}

/// A host's key as a trail claims it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// The key.
    pub key: VerifierKey,
    /// Whether a key that is known from elsewhere vouches for the trail's too.
    pub pinned: bool,
}

/// A checkpoint whose signature, size and root are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedCheckpoint {
    /// Number of the record that holds it.
    pub seq: u64,
    /// Records that it speaks of.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Digest,
    /// Bytes of these records.
    pub byte_offset: u64,
}

/// A checkpoint that witnesses have cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignedSize {
    /// Records that it speaks of.
    pub size: u64,
    /// The witnesses, by their place in [`super::VerifyOptions::witnesses`].
    pub witnesses: Vec<usize>,
}

/// The trail when it had a certain number of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateAt {
    /// Number of records.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Digest,
    /// The key that would have signed a checkpoint over them.
    pub key: Option<VerifierKey>,
}
