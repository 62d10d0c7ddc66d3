//! Checkpoints of a trail's Merkle tree (c2sp.org/tlog-checkpoint): what a
//! trail was when its key signed it, and which host vouches for that key.
//!
//! A [`Checkpoint`] is the text of a note: `origin`, the number of records
//! and the root of the tree over them, a line each. A trail's key has the
//! trail's origin as its name and lives as long as the trail is written; a
//! [certificate](certify) by the host's key says that it is the right one.

mod certificate;

pub(crate) use certificate::claimed_key;
pub use certificate::{CertificateError, certified_key, certify, hand_over};

use crate::note::{Note, NoteError, SigningKey, VerifierKey, VerifyError};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sandtrace_event::Digest;
use std::fmt;
use std::str::FromStr;

/// The first `size` records of the log `origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Digest,
    /// Lines that others may add; opaque, none of them empty.
    extensions: Vec<String>,
}

/// Why a text is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Fewer than three lines, an empty one, or no line feed at the end.
    #[error("a checkpoint has three lines or more, none of them empty")]
    Lines,
    /// The second line is no canonical decimal number.
    #[error("a checkpoint's second line is its size in decimal digits")]
    Size,
    /// The third line is not the base64 form of 32 bytes.
    #[error("a checkpoint's third line is a root of 32 bytes in base64")]
    Root,
}

/// Why a note is not a log's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The note does not carry the key's signature.
    #[error("a checkpoint by {key}")]
    Signature {
        /// Name of the key.
        key: String,
        /// What is wrong with the signature.
        source: VerifyError,
    },
    /// The text is no checkpoint, though the key signed it.
    #[error("a note by {key}")]
    Text {
        /// Name of the key.
        key: String,
        /// What is wrong with the text.
        source: CheckpointError,
    },
    /// The checkpoint is that of another log.
    #[error("a checkpoint of {found} is not one of {expected}")]
    Origin {
        /// The key's name.
        expected: String,
        /// What the checkpoint says.
        found: String,
    },
}

impl Checkpoint {
    /// The checkpoint of a tree.
    ///
    /// # Errors
    /// The origin is empty or has a line feed.
    pub fn new(origin: &str, size: u64, root: Digest) -> Result<Self, CheckpointError> {
        if origin.is_empty() || origin.contains('\n') {
            return Err(CheckpointError::Lines);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
            extensions: Vec::new(),
        })
    }

    /// Reads the checkpoint in a note that `key` must have signed and whose
    /// origin must be the key's name.
    ///
    /// # Errors
    /// The note is not a checkpoint of this key's log.
    pub fn open(note: &Note, key: &VerifierKey) -> Result<Self, OpenError> {
        let name = || key.name().to_owned();
        note.verify(std::slice::from_ref(key))
            .map_err(|source| OpenError::Signature {
                key: name(),
                source,
            })?;
        let checkpoint: Self = note.text().parse().map_err(|source| OpenError::Text {
            key: name(),
            source,
        })?;
        if checkpoint.origin == key.name() {
            Ok(checkpoint)
        } else {
            Err(OpenError::Origin {
                expected: name(),
                found: checkpoint.origin,
            })
        }
    }

    /// The signed note.
    ///
    /// # Errors
    /// The origin has control characters or is too long for a note.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, NoteError> {
        let mut note = Note::unsigned(self.to_string())?;
        note.sign(key, 0);
        Ok(note)
    }

    /// Name of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many records it speaks of.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the tree over them.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.origin, self.size)?;
        writeln!(f, "{}", BASE64_STANDARD.encode(self.root.0))?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let text = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = text.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty());
        let (Some(origin), Some(size), Some(root)) = (line(), line(), line()) else {
            return Err(CheckpointError::Lines);
        };
        let extensions: Vec<_> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Lines);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size: decimal(size).ok_or(CheckpointError::Size)?,
            root: hash(root).ok_or(CheckpointError::Root)?,
            extensions,
        })
    }
}

/// Only digits, and no zeros in front.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// 32 bytes in base64.
pub(crate) fn hash(text: &str) -> Option<Digest> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    bytes.try_into().ok().map(Digest)
}
