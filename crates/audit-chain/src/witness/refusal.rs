//! Why a witness does not do what it is asked.

use super::StoreError;
use super::request::RequestError;
use crate::checkpoint::{CertificateError, CheckpointError};
use crate::note::{NoteError, VerifyError};

/// Why a witness does not sign, or does not take on a log.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read.
    #[error("malformed request: {0}")]
    Malformed(#[from] RequestError),
    /// The note in the request is no checkpoint.
    #[error("malformed checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The body is no note.
    #[error("malformed note: {0}")]
    Note(#[from] NoteError),
    /// The old size is larger than the checkpoint's.
    #[error("the old size {old} is larger than the checkpoint's size {size}")]
    OldSize {
        /// What the request says.
        old: u64,
        /// What the checkpoint says.
        size: u64,
    },
    /// The witness does not know this log.
    #[error("unknown log {0:?}")]
    UnknownLog(String),
    /// No key that is trusted for the log has signed, or one has not signed
    /// this.
    #[error("the checkpoint of {log:?}: {source}")]
    Untrusted {
        /// The log's origin.
        log: String,
        /// What is wrong with the signature.
        source: VerifyError,
    },
    /// The last checkpoint that was cosigned is another.
    #[error("the last checkpoint that was cosigned has {size} records")]
    Conflict {
        /// Its size.
        size: u64,
    },
    /// The last checkpoint that was cosigned has the same size and another root.
    #[error("another checkpoint of {size} records was cosigned: the log has forked")]
    Forked {
        /// Its size.
        size: u64,
    },
    /// The proof does not show that the log only grew.
    #[error("the consistency proof does not hold: {0}")]
    Proof(String),
    /// Nobody who may has certified the key.
    #[error("the certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// The host that certified the key has no say over logs of that name.
    #[error("host {host:?} may not certify keys of {log:?}, only of logs below its own name")]
    ForeignHost {
        /// Name of the host's key.
        host: String,
        /// The log's origin.
        log: String,
    },
    /// The key was replaced by another one before.
    #[error("the key of {0:?} was replaced before; an old key does not come back")]
    RetiredKey(String),
    /// The witness has as many logs as it may.
    #[error("this witness has {0} logs and takes on no more")]
    Full(usize),
    /// The witness's own memory failed it; it signs nothing that it cannot
    /// remember.
    #[error("this witness cannot keep its state")]
    Store(#[from] StoreError),
}

impl Refusal {
    /// The HTTP status for it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Checkpoint(_) | Self::Note(_) | Self::OldSize { .. } => 400,
            Self::Untrusted { .. } | Self::Certificate(_) | Self::ForeignHost { .. } => 403,
            Self::UnknownLog(_) => 404,
            Self::Conflict { .. } | Self::Forked { .. } | Self::RetiredKey(_) => 409,
            Self::Proof(_) => 422,
            Self::Store(_) => 500,
            Self::Full(_) => 507,
        }
    }

    /// The HTTP body for it, and the body's type. The witness's disk is its
    /// own affair.
    #[must_use]
    pub fn body(&self) -> (&'static str, String) {
        match self {
            Self::Conflict { size } | Self::Forked { size } => {
                ("text/x.tlog.size", format!("{size}\n"))
            }
            _ => ("text/plain; charset=utf-8", format!("{self}\n")),
        }
    }
}
