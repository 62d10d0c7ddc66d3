//! From bytes to a note.

use super::key::is_name;
use super::{KeyId, Note, SignatureLine};
use base64::prelude::{BASE64_STANDARD, Engine as _};

/// Longest note in bytes. A line of a trail has room for it.
pub const MAX_NOTE: usize = 48 * 1024;

/// Most signatures of a note.
pub const MAX_SIGNATURES: usize = 100;

/// Why bytes are no note.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The note is longer than [`MAX_NOTE`].
    #[error("a note has at most {MAX_NOTE} bytes")]
    TooLong,
    /// The note is not UTF-8, or has control characters.
    #[error("a note is UTF-8 without control characters but line feeds")]
    Text,
    /// The text does not end with a line feed.
    #[error("a note's text ends with a line feed")]
    NoLineFeed,
    /// There is no empty line with signatures after it.
    #[error("a note ends with an empty line and whole lines of signatures")]
    NoSignatures,
    /// A line after the text is no signature line.
    #[error("signature line {number} is malformed")]
    SignatureLine {
        /// Its number, from 1.
        number: usize,
    },
    /// There are more than [`MAX_SIGNATURES`] signatures.
    #[error("a note has at most {MAX_SIGNATURES} signatures")]
    TooManySignatures,
}

pub(super) fn note(bytes: &[u8]) -> Result<Note, NoteError> {
    let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
    check_characters(whole)?;
    // The last empty line: a text may have some of its own.
    let split = whole.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
    let text = whole.get(..=split).unwrap_or_default();
    let lines = whole.get(split + 2..).unwrap_or_default();
    let lines = lines.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
    let mut signatures = Vec::new();
    for (index, line) in lines.split('\n').enumerate() {
        if index == MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        let malformed = NoteError::SignatureLine { number: index + 1 };
        signatures.push(signature(line).ok_or(malformed)?);
    }
    Ok(Note {
        text: text.to_owned(),
        signatures,
    })
}

pub(super) fn check_text(text: &str) -> Result<(), NoteError> {
    check_characters(text)?;
    if text.ends_with('\n') {
        Ok(())
    } else {
        Err(NoteError::NoLineFeed)
    }
}

fn check_characters(text: &str) -> Result<(), NoteError> {
    if text.len() > MAX_NOTE {
        Err(NoteError::TooLong)
    } else if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        Err(NoteError::Text)
    } else {
        Ok(())
    }
}

/// `— name base64(id || signature)`
fn signature(line: &str) -> Option<SignatureLine> {
    let (name, blob) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let blob = BASE64_STANDARD.decode(blob).ok()?;
    let (id, blob) = blob.split_first_chunk()?;
    (is_name(name) && !blob.is_empty()).then(|| SignatureLine {
        name: name.to_owned(),
        id: KeyId(*id),
        blob: blob.to_vec(),
    })
}
