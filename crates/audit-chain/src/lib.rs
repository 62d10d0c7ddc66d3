//! Hash-chained JSONL trails: canonical encoding, append, verify.
//!
//! A trail is a file of lines; each line is the RFC 8785 form of one
//! [`sandtrace_event::AuditEvent`] and carries the hash of the line before.
//! docs/trail-format.md has the bytes. [`TrailWriter`] appends, [`verify()`]
//! checks a whole trail, [`TrailReader`] walks over one that may still grow.
//!
//! [`merkle`] proves that records are in a trail and that a trail only grew;
//! [`note`] and [`checkpoint`] sign what is to be proved against.
//!
//! Nothing here asks for the time: the moments come with the events, and the
//! clock of the group commit is an argument.

pub mod checkpoint;
mod counts;
mod envelope;
pub mod forge;
pub mod jcs;
pub mod key_file;
mod line;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod reader;
pub mod segments;
pub mod verify;
pub mod witness;
mod writer;

pub use counts::Counts;
pub use jcs::MAX_DEPTH;
pub use line::MAX_LINE;
pub use reader::{Line, ReadError, TrailReader};
pub use verify::{Outcome, Report, VerifyOptions, verify};
pub use writer::{
    Batch, CHECKPOINT_RECORDS, Existing, Head, Resumed, Sealed, SegmentLimits, SignError,
    TrailIdentity, TrailSigner, TrailWriter, WriteError,
};
