//! Signed notes as C2SP specifies them (c2sp.org/signed-note): a text, an
//! empty line, and one line per signature.
//!
//! A note that was parsed proves nothing; [`Note::verify`] says which of the
//! keys that somebody trusts have signed it. Lines by other keys and of other
//! kinds are kept but ignored.

mod key;
mod parse;

pub use key::{Algorithm, KeyError, KeyId, SigningKey, VerifierKey};
pub use parse::{MAX_NOTE, MAX_SIGNATURES, NoteError};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::fmt;

/// A text and the signatures that it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

/// A signature as a note states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    /// Name of the key.
    pub name: String,
    /// What sets the key apart from others of that name.
    pub id: KeyId,
    /// The signature, in the form of the key's algorithm.
    pub blob: Vec<u8>,
}

/// A signature that was found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSignature<'a> {
    /// The key that made it.
    pub key: &'a VerifierKey,
    /// When a witness says it saw the text, in seconds since 1970; absent in
    /// plain signatures.
    pub time: Option<u64>,
}

/// Why nobody trusted vouches for a note.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A trusted key's signature is wrong: the text is not what it signed.
    #[error("the signature by {name} is wrong")]
    Invalid {
        /// Name of the key.
        name: String,
    },
    /// Two of the trusted keys have this name and id.
    #[error("two keys are named {name} and have one id")]
    Ambiguous {
        /// Name of the keys.
        name: String,
    },
    /// None of the trusted keys has signed.
    #[error("no known key has signed this")]
    Unverified,
}

impl Note {
    /// A note that nobody has signed yet.
    ///
    /// # Errors
    /// The text cannot be signed: it does not end with a line feed, has other
    /// control characters, or is too long.
    pub fn unsigned(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        parse::check_text(&text)?;
        Ok(Self {
            text,
            signatures: Vec::new(),
        })
    }

    /// Reads a note.
    ///
    /// # Errors
    /// These bytes are no note.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        parse::note(bytes)
    }

    /// What was signed, its last line feed included.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures as stated, right or wrong.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Signs the text; an older signature by this key goes. A key for
    /// cosignatures states `time`, in seconds since 1970; others ignore it.
    pub fn sign(&mut self, key: &SigningKey, time: u64) {
        let verifier = key.verifier();
        let blob = key.sign(&self.text, time);
        self.signatures
            .retain(|line| (line.name.as_str(), line.id) != (verifier.name(), verifier.id()));
        self.signatures.push(SignatureLine {
            name: verifier.name().to_owned(),
            id: verifier.id(),
            blob,
        });
    }

    /// Puts a signature by somebody else beside the others. It is not checked
    /// here; one that is there already is not repeated.
    pub fn attach(&mut self, line: SignatureLine) {
        if !self.signatures.contains(&line) {
            self.signatures.push(line);
        }
    }

    /// The signatures in their text form, without the text.
    #[must_use]
    pub fn signature_lines(&self) -> String {
        let lines = self.signatures.iter().map(ToString::to_string);
        lines.collect()
    }

    /// The signatures by `keys`, each key once; at least one.
    ///
    /// # Errors
    /// None of the keys has signed, or a signature by one of them is wrong.
    pub fn verify<'a>(
        &self,
        keys: &'a [VerifierKey],
    ) -> Result<Vec<VerifiedSignature<'a>>, VerifyError> {
        let mut verified: Vec<VerifiedSignature<'a>> = Vec::new();
        for line in &self.signatures {
            let Some(key) = the_key(line, keys)? else {
                continue;
            };
            // A repeated line says nothing new, nor what follows it.
            if verified.iter().any(|other| other.key == key) {
                continue;
            }
            let time = key.check_line(&self.text, &line.blob);
            let time = time.ok_or_else(|| VerifyError::Invalid {
                name: line.name.clone(),
            })?;
            verified.push(VerifiedSignature { key, time });
        }
        if verified.is_empty() {
            return Err(VerifyError::Unverified);
        }
        Ok(verified)
    }
}

/// The only key that a line can be by.
fn the_key<'a>(
    line: &SignatureLine,
    keys: &'a [VerifierKey],
) -> Result<Option<&'a VerifierKey>, VerifyError> {
    let mut matching = keys
        .iter()
        .filter(|key| key.id() == line.id && key.name() == line.name);
    let first = matching.next();
    match matching.next() {
        None => Ok(first),
        Some(_) => Err(VerifyError::Ambiguous {
            name: line.name.clone(),
        }),
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, blob } = self;
        let blob = BASE64_STANDARD.encode([&id.0[..], blob].concat());
        writeln!(f, "\u{2014} {name} {blob}")
    }
}
