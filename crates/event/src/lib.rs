//! What a trail says: events, their payloads, verdicts, ids and digests.
//!
//! This crate does no I/O and asks for no time; everything is a value that
//! somebody else observed. Collectors build an [`Observation`], the policy
//! turns it into a [`Judged`] event, and the audit chain seals that into one
//! line of a trail, which reads back as an [`AuditEvent`].

mod control;
mod digest;
mod filesystem;
mod ids;
mod network;
mod number;
mod record;
mod syscall;
mod text;
mod time;
mod trail;
mod verdict;

pub use control::{
    BackendInForce, CaptureGap, Coverage, DetachReason, DiskIdentity, EvidenceFile, GapCause,
    GapUnit, Layer, Passed, PolicyChange, Reconciliation, RunState, SandboxAttached,
    SandboxDetached, SandboxState, TapIdentity, VmmIdentity,
};
pub use digest::{Digest, ParseDigestError};
pub use filesystem::{
    ChangeSource, FileChange, FileKind, FileOp, HashScope, QuiesceMethod, SecretsFound,
};
pub use ids::EventId;
pub use network::{
    Aggregate, CertificateFacts, DnsQuery, Flow, FlowEnd, FlowPhase, HttpFacts, NameEvidence,
    NameSource, Protocol, TlsFacts, Tunnel,
};
pub use number::{Count, MAX_SAFE_INTEGER};
pub use record::{
    AuditEvent, EventType, EvidenceTier, IngressFlow, Judged, Observation, Payload, SCHEMA_VERSION,
};
pub use syscall::{
    CallCount, CallSummary, CallingProcess, RareCall, SyscallAbi, SyscallActivity, SyscallBackend,
    SyscallFinding, SyscallFindingKind, SyscallSubject, VcpuExits,
};
pub use text::Bytes64;
pub use time::{ParseTimeError, Timestamp, WallTime};
pub use trail::{
    BreakReason, Cadence, Checkpoint, Cosignature, EndReason, KeyRotate, PriorTrail, SegmentCause,
    SegmentEnd, SegmentStart, SessionStart, TrailEnd, TrailKey, TrailStart,
};
pub use verdict::{Limits, ParseVerdictError, Verdict, VerdictResult};
