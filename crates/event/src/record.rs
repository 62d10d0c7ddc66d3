//! From an observation to a line of the trail.

use crate::{
    CaptureGap, Checkpoint, Cosignature, Digest, DnsQuery, EventId, EvidenceFile, FileChange, Flow,
    KeyRotate, PolicyChange, SandboxAttached, SandboxDetached, SandboxState, SegmentEnd,
    SegmentStart, SessionStart, SyscallActivity, Timestamp, TrailEnd, TrailStart, Verdict,
    WallTime,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Version of the schema that this crate writes and reads.
pub const SCHEMA_VERSION: &str = "1.0";

/// From where a fact was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvidenceTier {
    /// Outside the guest: tap, block device, overlay upper dir.
    Hypervisor,
    /// The host kernel's view of a process that shares it.
    Kernel,
    /// Claimed by the guest itself.
    Guest,
}

impl EvidenceTier {
    /// Every tier, the most trusted first.
    pub const ALL: [Self; 3] = [Self::Hypervisor, Self::Kernel, Self::Guest];

    /// The word that the trail and the filters use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hypervisor => "hypervisor",
            Self::Kernel => "kernel",
            Self::Guest => "guest",
        }
    }
}

impl FromStr for EvidenceTier {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.as_str() == word)
            .ok_or_else(|| "not an evidence tier: use hypervisor, kernel or guest".to_owned())
    }
}

macro_rules! payloads {
    ($($(#[$doc:meta])* $variant:ident($payload:ty) = $name:literal,)*) => {
        /// What kind of fact a record states.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum EventType {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl EventType {
            /// Every type, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word that the trail and the filters use.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        /// The fact itself.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Payload {
            $($(#[$doc])* $variant($payload),)*
        }

        impl Payload {
            /// The record's `event_type`.
            #[must_use]
            pub fn event_type(&self) -> EventType {
                match self { $(Self::$variant(_) => EventType::$variant,)* }
            }

            fn parse(event_type: EventType, json: &str) -> serde_json::Result<Self> {
                match event_type {
                    $(EventType::$variant => serde_json::from_str(json).map(Self::$variant),)*
                }
            }
        }

        $(impl From<$payload> for Payload {
            fn from(payload: $payload) -> Self { Self::$variant(payload) }
        })*
    };
}

/// A conversation that the outside began. The same fields as [`Flow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IngressFlow(pub Flow);

payloads! {
    /// A conversation that the sandbox began.
    NetworkEgress(Flow) = "network_egress",
    /// A conversation that the outside began.
    NetworkIngress(IngressFlow) = "network_ingress",
    /// A DNS question and its answer.
    DnsQuery(DnsQuery) = "dns_query",
    /// A path that changed.
    FilesystemChange(FileChange) = "filesystem_change",
    /// System calls of the VMM process.
    SyscallActivity(SyscallActivity) = "syscall_activity",
    /// The first record.
    TrailStart(TrailStart) = "trail_start",
    /// Watching began.
    SandboxAttached(SandboxAttached) = "sandbox_attached",
    /// Watching ended.
    SandboxDetached(SandboxDetached) = "sandbox_detached",
    /// Something was not seen.
    CaptureGap(CaptureGap) = "capture_gap",
    /// A file with frames was closed.
    EvidenceFile(EvidenceFile) = "evidence_file",
    /// The sandbox was paused or resumed.
    SandboxState(SandboxState) = "sandbox_state",
    /// Policy and settings were read again.
    PolicyChange(PolicyChange) = "policy_change",
    /// Writing went on after a crash.
    SessionStart(SessionStart) = "session_start",
    /// All records before this one, signed.
    Checkpoint(Checkpoint) = "checkpoint",
    /// A witness signed a checkpoint.
    Cosignature(Cosignature) = "cosignature",
    /// The next key signs from here.
    KeyRotate(KeyRotate) = "key_rotate",
    /// The trail goes on in the next file.
    SegmentEnd(SegmentEnd) = "segment_end",
    /// The trail goes on from the file before.
    SegmentStart(SegmentStart) = "segment_start",
    /// The last event.
    TrailEnd(TrailEnd) = "trail_end",
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
                format!("not an event type: use one of {}", known.join(", "))
            })
    }
}

/// What a collector saw, before anybody judged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When it was seen.
    pub at: Timestamp,
    /// What was seen.
    pub payload: Payload,
    /// From where it was seen.
    pub tier: EvidenceTier,
}

/// An observation with the policy's answer; control records have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What was seen.
    pub observation: Observation,
    /// What the policy says of it.
    pub verdict: Option<Verdict>,
}

/// One line of a trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEvent {
    /// The agent, or the sandbox's id where nothing names the agent.
    pub agent_id: Arc<str>,
    /// Unique, ordered by time.
    pub event_id: EventId,
    /// What kind of fact this is.
    pub event_type: EventType,
    /// From where it was seen.
    pub evidence_tier: EvidenceTier,
    /// Microseconds of `CLOCK_BOOTTIME` when it was seen.
    pub mono_us: crate::Count,
    /// The fact.
    pub payload: Payload,
    /// `record_hash` of the line before; null only at seq 1.
    pub prev_hash: Option<Digest>,
    /// SHA-256 of this line without this member, followed by `prev_hash`.
    pub record_hash: Digest,
    /// The sandbox.
    pub sandbox_id: Arc<str>,
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: &'static str,
    /// From 1, without a gap.
    pub seq: crate::Count,
    /// The trail.
    pub trace_id: Arc<str>,
    /// The policy's answer; null for control records.
    pub verdict: Option<Verdict>,
    /// The wall clock when it was seen.
    pub wall_time: WallTime,
}

impl AuditEvent {
    /// The observation inside this line, to be judged again.
    #[must_use]
    pub fn observation(&self) -> Observation {
        Observation {
            at: Timestamp {
                mono_us: self.mono_us.0,
                wall: self.wall_time,
            },
            payload: self.payload.clone(),
            tier: self.evidence_tier,
        }
    }
}

/// The members of a line whose payload is not looked into yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent<'a> {
    agent_id: String,
    event_id: EventId,
    event_type: EventType,
    evidence_tier: EvidenceTier,
    mono_us: crate::Count,
    #[serde(borrow)]
    payload: &'a RawValue,
    prev_hash: Option<Digest>,
    record_hash: Digest,
    sandbox_id: String,
    schema_version: String,
    seq: crate::Count,
    trace_id: String,
    verdict: Option<Verdict>,
    wall_time: WallTime,
}

impl<'de> Deserialize<'de> for AuditEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawEvent::deserialize(deserializer)?;
        if raw.schema_version != SCHEMA_VERSION {
            return Err(D::Error::custom(format_args!(
                "schema_version is {:?}, this program reads {SCHEMA_VERSION:?}",
                raw.schema_version
            )));
        }
        let payload =
            Payload::parse(raw.event_type, raw.payload.get()).map_err(D::Error::custom)?;
        Ok(Self {
            agent_id: raw.agent_id.into(),
            event_id: raw.event_id,
            event_type: raw.event_type,
            evidence_tier: raw.evidence_tier,
            mono_us: raw.mono_us,
            payload,
            prev_hash: raw.prev_hash,
            record_hash: raw.record_hash,
            sandbox_id: raw.sandbox_id.into(),
            schema_version: SCHEMA_VERSION,
            seq: raw.seq,
            trace_id: raw.trace_id.into(),
            verdict: raw.verdict,
            wall_time: raw.wall_time,
        })
    }
}
