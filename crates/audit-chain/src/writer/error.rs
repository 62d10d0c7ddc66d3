//! Why a trail cannot be written.

use crate::checkpoint::CheckpointError;
use crate::line::EncodeError;
use crate::note::{KeyError, NoteError};
use sandtrace_event::EventType;
use std::io;
use std::path::PathBuf;

/// Why a trail cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is something at this path already.
    #[error("trail {path} exists; choose another path or move it away")]
    Exists {
        /// Path of the trail.
        path: PathBuf,
    },
    /// Another process writes to this trail.
    #[error(
        "trail {path} is being written by another process; end that one or choose another path"
    )]
    Locked {
        /// Path of the trail.
        path: PathBuf,
    },
    /// The disk, the quota or the file is full. What was acknowledged before
    /// stands; nothing of the failed commit does.
    #[error(
        "trail {path}: no space left for {bytes} more bytes; it ends after {acknowledged} bytes"
    )]
    Full {
        /// Path of the trail.
        path: PathBuf,
        /// Bytes that found no room.
        bytes: usize,
        /// Bytes of this file that are safe on disk.
        acknowledged: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("{doing} trail {path}")]
    Io {
        /// What was being done to the trail.
        doing: &'static str,
        /// Path of the trail.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier commit failed; nothing more can be written to this trail.
    #[error("trail {path}: nothing can be written after an earlier failure")]
    Failed {
        /// Path of the trail.
        path: PathBuf,
    },
    /// This event cannot be a line; the trail can go on without it.
    #[error("trail {path}")]
    Encode {
        /// Path of the trail.
        path: PathBuf,
        /// What is wrong with the event.
        source: EncodeError,
    },
    /// `trail_start` comes first and only there, `trail_end` last.
    #[error("trail {path}: a {event_type} record cannot stand at seq {seq}")]
    OutOfOrder {
        /// Path of the trail.
        path: PathBuf,
        /// Type of the event.
        event_type: EventType,
        /// Where it was to stand.
        seq: u64,
    },
    /// What the trail's key was to sign cannot be signed.
    #[error("trail {path}")]
    Sign {
        /// Path of the trail.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SignError,
    },
}

/// Why a trail's key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The system has no random bytes for a key.
    #[error("getting random bytes for the trail's key")]
    Random {
        /// What the system said.
        #[from]
        source: rustix::io::Errno,
    },
    /// The trail's origin cannot be the name of a key.
    #[error("making the trail's key")]
    Key {
        /// What is wrong with the name.
        #[from]
        source: KeyError,
    },
    /// The origin cannot stand in a checkpoint.
    #[error("making a checkpoint")]
    Checkpoint {
        /// What is wrong with it.
        #[from]
        source: CheckpointError,
    },
    /// The text cannot be a note.
    #[error("signing")]
    Note {
        /// What is wrong with it.
        #[from]
        source: NoteError,
    },
}
