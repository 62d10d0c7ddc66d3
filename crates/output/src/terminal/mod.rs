//! Events as people read them: one line each, safe to print.
//!
//! Columns are time (UTC), kind, verdict, what happened, to what, size, and
//! the rest. Everything that a guest can choose passes [`Text`], so that no
//! control character, escape sequence or direction override reaches a
//! terminal. Widths count characters: wide ones shift columns, nothing else.

mod columns;
mod control;
mod data;
mod escape;
mod size;
mod summary;
mod syscall;
mod trail;

pub use escape::{Charset, Text, ascii_json};
pub use size::size;
pub use summary::summary;

use sandtrace_event::{AuditEvent, Payload};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Colour verdicts with ANSI sequences.
    pub colour: bool,
    /// Columns of the terminal, where there is one; longer lines are cut.
    pub width: Option<usize>,
}

/// One readable line for `event`, without a line end.
#[must_use]
pub fn line(event: &AuditEvent, look: Look) -> String {
    let columns = match &event.payload {
        Payload::NetworkEgress(flow) => data::egress(flow),
        Payload::NetworkIngress(flow) => data::ingress(&flow.0),
        Payload::DnsQuery(query) => data::dns(query),
        Payload::FilesystemChange(change) => data::file(change),
        Payload::SyscallActivity(activity) => syscall::activity(activity),
        Payload::TrailStart(start) => control::start(start, &event.trace_id),
        Payload::SandboxAttached(attached) => control::attached(attached, &event.sandbox_id),
        Payload::SandboxDetached(detached) => control::detached(detached, &event.sandbox_id),
        Payload::CaptureGap(gap) => control::gap(gap),
        Payload::EvidenceFile(file) => control::evidence(file),
        Payload::SandboxState(state) => control::state(state, &event.sandbox_id),
        Payload::PolicyChange(change) => control::policy_change(change),
        Payload::SessionStart(session) => trail::session(session),
        Payload::Checkpoint(checkpoint) => trail::checkpoint(&checkpoint.note),
        Payload::Cosignature(cosignature) => trail::cosignature(cosignature),
        Payload::KeyRotate(_) => trail::key_rotate(),
        Payload::SegmentEnd(end) => trail::segment_end(end),
        Payload::SegmentStart(start) => trail::segment_start(start),
        Payload::TrailEnd(end) => control::end(end),
    };
    columns.line(event, look)
}
