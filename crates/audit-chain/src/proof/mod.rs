//! Proofs that single records are in a signed trail, for somebody who has
//! nothing of the trail but the host's key.
//!
//! A [`Proof`] is a C2SP tlog-proof (c2sp.org/tlog-proof) whose extra data is
//! the record, the certificates of the key that signed the checkpoint, and
//! the host's key as the trail claims it; docs/trail-format.md has the bytes.
//! A file may hold many, one after the other. [`make`] makes them.

mod check;
pub mod make;

pub use check::{ProofFault, Shown};

use crate::checkpoint::{decimal, hash};
use crate::jcs;
use crate::note::{MAX_NOTE, Note};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sandtrace_event::Digest;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead};

/// First line of a proof.
const TITLE: &str = "c2sp.org/tlog-proof@v1";

/// Longest proof in bytes: a record, some certificates, a note.
pub const MAX_PROOF_BYTES: usize = 4 * 1024 * 1024;

/// One record and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What is no part of the tlog-proof proper.
    pub extra: Extra,
    /// The record's `seq`, less one.
    pub index: u64,
    /// From the leaf's sibling up.
    pub inclusion: Vec<Digest>,
    /// The checkpoint, with cosignatures where there are some.
    pub checkpoint: Note,
}

/// What a proof says beside the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra {
    /// Notes: the host's word for the first key of a session, that key's
    /// word for the next one, and so on to the key of the checkpoint.
    pub certificates: Vec<String>,
    /// The host's verifier key as the trail claims it.
    pub host: String,
    /// The record's line without its line feed.
    pub record: String,
}

impl Proof {
    /// Reads one proof.
    ///
    /// # Errors
    /// What the first bad line is.
    pub fn parse(text: &str) -> Result<Self, ProofFault> {
        let malformed = |what: &str| ProofFault::Malformed(what.to_owned());
        let (head, note) = text
            .split_once("\n\n")
            .ok_or_else(|| malformed("there is no empty line"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(TITLE) {
            return Err(malformed("it does not begin as a proof does"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let extra = extra.ok_or_else(|| malformed("the second line is not its extra data"))?;
        let extra = BASE64_STANDARD.decode(extra);
        let extra = extra.map_err(|_| malformed("the extra data is not base64"))?;
        jcs::check(&extra).map_err(|error| malformed(&format!("the extra data: {error}")))?;
        let extra = serde_json::from_slice(&extra)
            .map_err(|error| malformed(&format!("the extra data: {error}")))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(decimal);
        let index = index.ok_or_else(|| malformed("the third line is not its index"))?;
        let inclusion: Option<Vec<Digest>> = lines.map(hash).collect();
        let inclusion = inclusion.ok_or_else(|| malformed("a line of it is no hash"))?;
        let checkpoint = Note::parse(note.as_bytes())
            .map_err(|error| malformed(&format!("the checkpoint: {error}")))?;
        Ok(Self {
            extra,
            index,
            inclusion,
            checkpoint,
        })
    }

    /// The form that [`Self::parse`] reads.
    ///
    /// # Errors
    /// Never for what was read from a trail.
    pub fn to_text(&self) -> Result<String, jcs::Error> {
        let extra = BASE64_STANDARD.encode(jcs::to_vec(&self.extra)?);
        let mut text = format!("{TITLE}\nextra {extra}\nindex {}\n", self.index);
        for hash in &self.inclusion {
            text += &BASE64_STANDARD.encode(hash.0);
            text.push('\n');
        }
        Ok(format!("{text}\n{}", self.checkpoint))
    }
}

/// The texts of the proofs in a file, one after the other, in bounded memory.
pub struct Texts<R> {
    input: R,
    /// The first line of the next proof.
    next: Vec<u8>,
}

impl<R: BufRead> Texts<R> {
    /// Reads from the beginning of a file.
    pub fn new(input: R) -> Self {
        let next = Vec::new();
        Self { input, next }
    }

    /// The next one; `None` at the end. What it says is not looked at.
    ///
    /// # Errors
    /// The input fails, is no text, or a proof in it is too long.
    pub fn next_text(&mut self) -> io::Result<Option<String>> {
        let mut text = std::mem::take(&mut self.next);
        loop {
            let mut line = Vec::new();
            let room = u64::try_from(MAX_PROOF_BYTES).unwrap_or(u64::MAX);
            let count = io::Read::take(&mut self.input, room).read_until(b'\n', &mut line)?;
            let is_title = line.strip_suffix(b"\n") == Some(TITLE.as_bytes());
            if count == 0 || (is_title && !text.is_empty()) {
                self.next = line;
                break;
            }
            text.append(&mut line);
            if text.len() > MAX_PROOF_BYTES + MAX_NOTE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
            }
        }
        if text.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8(text);
        text.map(Some)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
    }
}
