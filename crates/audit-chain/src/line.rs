//! From an event to its line, and the hash inside of it.

use crate::jcs::{self, Error};
use sandtrace_event::{AuditEvent, Digest, EventType};
use sha2::{Digest as _, Sha256};

/// Longest line in bytes, its line feed not counted.
pub const MAX_LINE: usize = 65_535;

/// Why an event cannot be a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The event has no canonical form.
    #[error("encoding a record of type {event_type}")]
    Jcs {
        /// Type of the event.
        event_type: EventType,
        /// What has no form.
        source: Error,
    },
    /// The line would be longer than [`MAX_LINE`].
    #[error("a record of type {event_type} takes {bytes} bytes, at most {MAX_LINE} are allowed")]
    TooLong {
        /// Type of the event.
        event_type: EventType,
        /// Length of the line.
        bytes: usize,
    },
}

/// Sets the event's `record_hash` and appends its line, line feed included.
/// After an error `out` holds a part of it.
///
/// The line is written once, with room left for the hash; what is hashed are
/// the bytes around that room.
pub(crate) fn seal(event: &mut AuditEvent, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let event_type = event.event_type;
    let split = write(out, event).map_err(|source| EncodeError::Jcs { event_type, source })?;
    let line = out.get_mut(start..).unwrap_or_default();
    let split = split.saturating_sub(start);
    let bytes = line.len();
    if bytes > MAX_LINE {
        return Err(EncodeError::TooLong { event_type, bytes });
    }
    let previous = event.prev_hash.as_ref().map(Digest::to_text);
    let previous = previous.as_ref().map_or(&[][..], |text| &text[..]);
    let (before, rest) = line.split_at_mut(split.min(bytes));
    let (member, after) = rest.split_at_mut(MEMBER_LEN.min(rest.len()));
    event.record_hash = record_hash(before, after, previous);
    // The room is made for the quoted text.
    let text = member.get_mut(RECORD_HASH.len() + 1..MEMBER_LEN - 1);
    if let Some(text) = text {
        text.copy_from_slice(&event.record_hash.to_text());
    }
    out.push(b'\n');
    Ok(())
}

/// SHA-256 over the canonical line without its `record_hash` member, followed
/// by the text of `prev_hash` without quotes (nothing where it is null).
pub(crate) fn record_hash(before: &[u8], after: &[u8], previous: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(after);
    hasher.update(previous);
    Digest(hasher.finalize().into())
}

/// What stands in front of the quoted hash; with the comma, because in canonical
/// order `prev_hash` always comes first.
pub(crate) const RECORD_HASH: &[u8; 15] = b",\"record_hash\":";
const MEMBER_LEN: usize = RECORD_HASH.len() + Digest::TEXT_LEN + 2;

/// Writes the line with room in the place of the hash, and gives the place of
/// the member `record_hash`.
fn write(out: &mut Vec<u8>, event: &AuditEvent) -> Result<usize, Error> {
    macro_rules! member {
        ($before:literal, $value:expr) => {
            out.extend_from_slice($before);
            jcs::write(out, $value, 1)?;
        };
    }
    member!(b"{\"agent_id\":", &event.agent_id);
    member!(b",\"event_id\":", &event.event_id);
    member!(b",\"event_type\":", &event.event_type);
    member!(b",\"evidence_tier\":", &event.evidence_tier);
    member!(b",\"mono_us\":", &event.mono_us);
    member!(b",\"payload\":", &event.payload);
    member!(b",\"prev_hash\":", &event.prev_hash);
    let split = out.len();
    out.extend_from_slice(RECORD_HASH);
    out.push(b'"');
    out.extend_from_slice(&[b'0'; Digest::TEXT_LEN]);
    out.push(b'"');
    member!(b",\"sandbox_id\":", &event.sandbox_id);
    member!(b",\"schema_version\":", &event.schema_version);
    member!(b",\"seq\":", &event.seq);
    member!(b",\"trace_id\":", &event.trace_id);
    member!(b",\"verdict\":", &event.verdict);
    member!(b",\"wall_time\":", &event.wall_time);
    out.push(b'}');
    Ok(split)
}
