//! What stands in the place of a record that is too long for a line.
//!
//! The parts of an event that the sandbox chooses are bounded where they are
//! read. Should one get here all the same, its trail must not end for that:
//! then a sandbox could end its own audit.

use crate::jcs;
use crate::line::MAX_LINE;
use sandtrace_event::{
    AuditEvent, CaptureGap, Count, Digest, EventType, GapCause, GapUnit, Layer, Verdict,
};
use sha2::{Digest as _, Sha256};

/// Characters that are kept of what does not fit, and of the reason for its verdict.
const KEPT: usize = 2048;

/// A `capture_gap` in place of an event whose line has `bytes` bytes, with the
/// same verdict; `None` where nobody but Sandtrace itself made it that long.
pub(super) fn gap(event: &AuditEvent, bytes: usize) -> Option<AuditEvent> {
    let layer = layer(event.event_type)?;
    let mut payload = Vec::new();
    // What was written once can be written again.
    jcs::write(&mut payload, &event.payload, 1).ok()?;
    let begin: String = String::from_utf8_lossy(&payload)
        .chars()
        .take(KEPT)
        .collect();
    let detail = format!(
        "a record of type {} would take {bytes} bytes, at most {MAX_LINE} are allowed; {} of its \
         payload of {} bytes, which begins {begin}",
        event.event_type,
        Digest(Sha256::digest(&payload).into()),
        payload.len(),
    );
    let gap = CaptureGap {
        cause: GapCause::RecordTooLong,
        count: Count(1),
        detail,
        first_at: event.wall_time,
        last_at: event.wall_time,
        layer,
        source: event.sandbox_id.to_string(),
        unit: GapUnit::Records,
    };
    let verdict = event.verdict.as_ref().map(|verdict| Verdict {
        policy_rule: verdict.policy_rule.clone(),
        reason: verdict.reason.chars().take(KEPT).collect(),
        result: verdict.result,
    });
    Some(AuditEvent {
        event_type: EventType::CaptureGap,
        payload: gap.into(),
        verdict,
        ..event.clone()
    })
}

/// The layer that saw an event, if a sandbox has a say in what it holds.
fn layer(event_type: EventType) -> Option<Layer> {
    match event_type {
        EventType::NetworkEgress | EventType::NetworkIngress | EventType::DnsQuery => {
            Some(Layer::Network)
        }
        EventType::FilesystemChange => Some(Layer::Filesystem),
        EventType::SyscallActivity => Some(Layer::Syscall),
        _ => None,
    }
}
