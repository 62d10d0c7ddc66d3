//! Lines of what a trail says of its keys, checkpoints and segments.

use super::columns::Columns;
use sandtrace_event::{Cosignature, SegmentCause, SegmentEnd, SegmentStart, SessionStart};

const KIND: &str = "CTL";

pub(super) fn session(session: &SessionStart) -> Columns {
    let torn = match session.torn_bytes.0 {
        0 => String::new(),
        bytes => format!("{bytes} torn bytes set aside"),
    };
    Columns::new(KIND, "session")
        .path(format!("goes on after {} records", session.prior_size).as_bytes())
        .remark(if session.clean {
            "clean"
        } else {
            "after a crash"
        })
        .remark(&torn)
}

/// The size is the second line of a checkpoint.
pub(super) fn checkpoint(note: &str) -> Columns {
    let size = note.lines().nth(1).unwrap_or("?");
    Columns::new(KIND, "signed").path(format!("{size} records").as_bytes())
}

pub(super) fn cosignature(cosignature: &Cosignature) -> Columns {
    let size = cosignature.note.lines().nth(1).unwrap_or("?");
    Columns::new(KIND, "cosigned")
        .path(format!("{size} records").as_bytes())
        .remark(&format!("by {}", cosignature.witness))
}

pub(super) fn key_rotate() -> Columns {
    Columns::new(KIND, "key").path(b"the next key signs from here")
}

pub(super) fn segment_end(end: &SegmentEnd) -> Columns {
    Columns::new(KIND, "segment")
        .path(format!("segment {} ends after {} records", end.number, end.size).as_bytes())
        .remark(cause(end.cause))
}

pub(super) fn segment_start(start: &SegmentStart) -> Columns {
    Columns::new(KIND, "segment")
        .path(format!("segment {} goes on from {}", start.number, start.size).as_bytes())
        .remark(cause(start.cause))
}

fn cause(cause: SegmentCause) -> &'static str {
    match cause {
        SegmentCause::Size => "its size",
        SegmentCause::Age => "its age",
        SegmentCause::SyncFailed => "NOT DURABLE: fdatasync failed",
    }
}
