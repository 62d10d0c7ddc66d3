//! The host's word for a trail's key.

use crate::note::{Algorithm, KeyError, Note, NoteError, SigningKey, VerifierKey, VerifyError};

/// First line of a certificate. Its second is a vkey, never a number, so that
/// no text is a checkpoint and a certificate at once.
const TITLE: &str = "sandtrace/trail-key/v1";

/// First line of the note in which a host's key names the next one.
const HAND_OVER: &str = "sandtrace/host-key/v1";

/// Why a note certifies nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// None of the hosts that are trusted has signed it.
    #[error("the certificate of a trail's key")]
    Signature {
        /// What is wrong with the signature.
        #[from]
        source: VerifyError,
    },
    /// The text is another than that of a certificate.
    #[error("the certificate of a trail's key has a title and a key")]
    Text,
    /// The key in it cannot be read.
    #[error("the key in a trail's certificate")]
    Key {
        /// What is wrong with the key.
        #[from]
        source: KeyError,
    },
    /// The key is another trail's, or does not sign checkpoints.
    #[error("the certificate is for {found}, not for the trail {expected}")]
    Origin {
        /// The trail.
        expected: String,
        /// Name of the key.
        found: String,
    },
}

/// The host says that this is the key of the trail that it is named after.
///
/// # Errors
/// The key's name has control characters or is too long for a note.
pub fn certify(trail: &VerifierKey, host: &SigningKey) -> Result<Note, NoteError> {
    let mut note = Note::unsigned(format!("{TITLE}\n{trail}\n"))?;
    note.sign(host, 0);
    Ok(note)
}

/// A host's key says which key takes its place.
///
/// # Errors
/// The next key's name has control characters or is too long for a note.
pub fn hand_over(next: &VerifierKey, host: &SigningKey) -> Result<Note, NoteError> {
    let mut note = Note::unsigned(format!("{HAND_OVER}\n{next}\n"))?;
    note.sign(host, 0);
    Ok(note)
}

/// The key of the trail `origin`, and the one of `hosts` that vouches for it.
///
/// # Errors
/// None of these hosts vouches for a key of that trail.
pub fn certified_key<'a>(
    certificate: &Note,
    hosts: &'a [VerifierKey],
    origin: &str,
) -> Result<(VerifierKey, &'a VerifierKey), CertificateError> {
    let verified = certificate.verify(hosts)?;
    let host = verified.first().ok_or(VerifyError::Unverified)?.key;
    let key = claimed_key(certificate)?;
    if key.name() == origin && key.algorithm() == Algorithm::Ed25519 {
        Ok((key, host))
    } else {
        Err(CertificateError::Origin {
            expected: origin.to_owned(),
            found: key.name().to_owned(),
        })
    }
}

/// The key that a certificate names, whoever signed it.
pub(crate) fn claimed_key(certificate: &Note) -> Result<VerifierKey, CertificateError> {
    let text = certificate.text();
    let key = text
        .strip_prefix(TITLE)
        .and_then(|rest| rest.strip_prefix('\n')?.strip_suffix('\n'))
        .ok_or(CertificateError::Text)?;
    Ok(key.parse()?)
}
