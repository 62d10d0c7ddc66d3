//! Payloads of control records by which a trail speaks of itself: its
//! beginning, its keys and checkpoints, its segments and its end.

use crate::{BackendInForce, Count, Digest, Reconciliation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key that signs a trail's checkpoints, and the host's word for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailKey {
    /// A signed note in which the host's key names the trail's key.
    pub certificate: String,
    /// The host's verifier key as the trail claims it: whoever must be sure
    /// of it has it from elsewhere.
    pub host: String,
    /// The trail's verifier key.
    pub trail: String,
}

/// How often a trail has checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cadence {
    /// Seconds between two checkpoints while nothing else happens.
    pub heartbeat_s: Count,
    /// Most records between two checkpoints.
    pub records: Count,
    /// Longest time, in seconds, that a record waits for one.
    pub seconds: Count,
}

/// Why a trail could not simply go on where an older one stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakReason {
    /// The older one had its `trail_end`.
    Sealed,
    /// A record of the older one was bad.
    Damaged,
    /// The older one had fewer records than were signed.
    Rollback,
}

/// The trail that was there before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorTrail {
    /// In a sentence.
    pub detail: String,
    /// Path of its first segment.
    pub path: String,
    /// Why this is another trail.
    pub reason: BreakReason,
    /// Hash of its last good record, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_hash: Option<Digest>,
    /// Number of its good records.
    pub size: Count,
}

/// First record of every trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailStart {
    /// Digest of the program that writes this trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_digest: Option<Digest>,
    /// Identifier of the host's boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// How often checkpoints are promised; absent where nothing is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cadence: Option<Cadence>,
    /// Capture backends in force.
    pub capture: Vec<BackendInForce>,
    /// Who signs; absent where nothing is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<TrailKey>,
    /// Settings, by their keys, that are not as the settings file of
    /// `settings_digest` has them: it was read again, and they need a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
    /// Random 64 bits in hexadecimal that set this trail apart from all others.
    pub nonce: String,
    /// Name of the log that this trail is: `sandtrace/<host>/<trace_id>`.
    pub origin: String,
    /// Digest of the policy file's bytes; absent where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<Digest>,
    /// Path of the policy file as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_path: Option<String>,
    /// The trail that was there before, where this one takes up its story.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PriorTrail>,
    /// Resolvers whose DNS answers count as evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<String>,
    /// Digest of the settings file's bytes; absent where none was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_digest: Option<Digest>,
    /// Version of Sandtrace.
    pub tool_version: String,
}

/// Writing goes on after the writer stopped without a `trail_end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionStart {
    /// Identifier of the host's boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Capture backends in force from here.
    pub capture: Vec<BackendInForce>,
    /// Whether every record found had been signed and no byte was torn: the
    /// writer before then lost nothing that it had begun to write.
    pub clean: bool,
    /// Who signs from here; the key of the session before died with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<TrailKey>,
    /// Digest of the policy file's bytes; absent where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<Digest>,
    /// `record_hash` of the last record that was found.
    pub prior_hash: Digest,
    /// Number of records that were found.
    pub prior_size: Count,
    /// Number of records that the newest signed checkpoint spoke of.
    pub signed_size: Count,
    /// Version of Sandtrace.
    pub tool_version: String,
    /// Bytes of a torn last line that were set aside.
    pub torn_bytes: Count,
    /// SHA-256 of them; absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn_digest: Option<Digest>,
}

/// A signed statement about all records before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// A C2SP signed note over a C2SP checkpoint, signed by the trail's key.
    pub note: String,
}

/// A witness has signed an earlier checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cosignature {
    /// The checkpoint's note with the witness's signature line.
    pub note: String,
    /// Where the witness was asked.
    pub witness: String,
}

/// The trail's key hands over to the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotate {
    /// A signed note in which the old key names the new one.
    pub certificate: String,
    /// The new verifier key.
    pub key: String,
}

/// Why a segment of a trail begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentCause {
    /// The file had the size at which the next one begins.
    Size,
    /// The file had the age at which the next one begins.
    Age,
    /// The file could not be made durable any more.
    SyncFailed,
}

/// Last record of a file of a trail that goes on in the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentEnd {
    /// Why.
    pub cause: SegmentCause,
    /// Number of this segment, from 1.
    pub number: Count,
    /// Root of the tree over the records before this one.
    pub root: Digest,
    /// Number of the records before this one.
    pub size: Count,
}

/// First record of every file of a trail but the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentStart {
    /// Why.
    pub cause: SegmentCause,
    /// Number of this segment, from 2.
    pub number: Count,
    /// Origin of the trail.
    pub origin: String,
    /// Root of the tree over the records before this one.
    pub root: Digest,
    /// Number of the records before this one.
    pub size: Count,
}

/// Why a trail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The sandbox ended.
    SandboxEnded,
    /// The operator ended the watch.
    Interrupted,
    /// The time given with `--duration` was over.
    Duration,
    /// The capture file was read to its end.
    EndOfFile,
    /// Capture failed; a `capture_gap` says how.
    CaptureFailed,
}

/// Last event of a trail that ended in order; where the trail is signed, the
/// checkpoint that seals it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailEnd {
    /// Records per event type before this one.
    pub events: BTreeMap<String, Count>,
    /// Why it ends.
    pub reason: EndReason,
    /// One entry per watched interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reconciliation: Vec<Reconciliation>,
    /// Records per verdict before this one.
    pub verdicts: BTreeMap<String, Count>,
}
