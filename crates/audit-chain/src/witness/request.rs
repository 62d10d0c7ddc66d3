//! What a witness is asked and what it answers (c2sp.org/tlog-witness).

use crate::checkpoint::{decimal, hash};
use crate::note::{MAX_NOTE, Note, NoteError, SignatureLine};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sandtrace_event::Digest;
use std::fmt;

/// Most hashes of a consistency proof.
pub const MAX_PROOF: usize = 63;

/// Longest request in bytes: a note, a proof, and the line before them.
pub const MAX_REQUEST: usize = MAX_NOTE + MAX_PROOF * 45 + 64;

/// The body of `add-checkpoint`: a newer checkpoint, and the proof that it
/// continues the one that the witness has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness has, as far as the log knows.
    pub old: u64,
    /// Consistency proof from that size to the checkpoint's.
    pub proof: Vec<Digest>,
    /// The checkpoint.
    pub note: Note,
}

/// Why bytes are no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request is longer than [`MAX_REQUEST`].
    #[error("a request has at most {MAX_REQUEST} bytes")]
    TooLong,
    /// The first line is not `old <size>`.
    #[error("the first line is `old <size>`, the size in decimal digits")]
    Old,
    /// A line of the proof is no hash.
    #[error("line {0} is not a hash of 32 bytes in base64")]
    Hash(usize),
    /// More than [`MAX_PROOF`] hashes.
    #[error("a consistency proof has at most {MAX_PROOF} hashes")]
    TooManyHashes,
    /// No empty line ends the proof.
    #[error("an empty line and a checkpoint follow the proof")]
    NoCheckpoint,
    /// What follows the empty line is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl AddCheckpoint {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// These bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > MAX_REQUEST {
            return Err(RequestError::TooLong);
        }
        let (first, mut rest) = split_line(bytes).ok_or(RequestError::Old)?;
        let old = std::str::from_utf8(first).ok();
        let old = old.and_then(|line| decimal(line.strip_prefix("old ")?));
        let old = old.ok_or(RequestError::Old)?;
        let mut proof = Vec::new();
        loop {
            let (line, after) = split_line(rest).ok_or(RequestError::NoCheckpoint)?;
            rest = after;
            if line.is_empty() {
                break;
            }
            if proof.len() == MAX_PROOF {
                return Err(RequestError::TooManyHashes);
            }
            let hash = std::str::from_utf8(line).ok().and_then(hash);
            proof.push(hash.ok_or(RequestError::Hash(proof.len() + 2))?);
        }
        let note = Note::parse(rest)?;
        Ok(Self { old, proof, note })
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", BASE64_STANDARD.encode(hash.0))?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// The signature lines that a witness answers with, as part of a note with
/// the text of `checkpoint`. They prove nothing before [`Note::verify`].
///
/// # Errors
/// The answer is no list of signature lines.
pub fn cosignatures(checkpoint: &Note, answer: &[u8]) -> Result<Vec<SignatureLine>, NoteError> {
    let note = [checkpoint.text().as_bytes(), b"\n", answer].concat();
    let note = Note::parse(&note)?;
    if note.text() == checkpoint.text() {
        Ok(note.signatures().to_vec())
    } else {
        // An empty line in the answer would have moved the text's end.
        Err(NoteError::NoSignatures)
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let feed = memchr::memchr(b'\n', bytes)?;
    let (line, rest) = bytes.split_at(feed);
    Some((line, rest.get(1..).unwrap_or_default()))
}
