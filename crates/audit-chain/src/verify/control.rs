//! Records by which a trail speaks of itself, read and prepared for the fold
//! by the threads that check blocks: signatures are what costs time here.

use crate::checkpoint::{Checkpoint, OpenError};
use crate::note::{Note, NoteError, VerifierKey, VerifyError};
use sandtrace_event::{
    Digest, KeyRotate, Payload, SegmentEnd, SegmentStart, SessionStart, TrailEnd, TrailStart,
};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// What checking a block needs to know beside its bytes.
pub(super) struct Context {
    /// Witnesses whose cosignatures are looked at.
    pub(super) witnesses: Vec<VerifierKey>,
    /// A size at which the root is wanted.
    pub(super) root_at: Option<u64>,
    /// Keys of the trail that were seen so far.
    pub(super) keys: KeyCache,
}

/// A control record's content.
pub(super) enum Control {
    Start(Box<TrailStart>),
    Session(Box<SessionStart>),
    Checkpoint(Signed),
    Cosignature(Result<Cosigned, String>),
    Rotate(Box<KeyRotate>),
    SegmentEnd(SegmentEnd),
    SegmentStart(SegmentStart),
    End(Box<TrailEnd>),
}

/// A checkpoint's note, and what it is by the key that it seems to be by.
pub(super) struct Signed {
    note: Result<Note, NoteError>,
    opened: Option<(Arc<VerifierKey>, Result<Checkpoint, OpenError>)>,
}

/// What witnesses said of a checkpoint.
pub(super) struct Cosigned {
    /// Of the checkpoint's text.
    pub(super) text: Digest,
    /// Size that it states.
    pub(super) size: u64,
    /// The known witnesses that signed, by their place in the list.
    pub(super) witnesses: Vec<usize>,
}

impl Control {
    /// `payload` is one of a type that says something about the trail.
    pub(super) fn read(payload: Payload, context: &Context) -> Option<Self> {
        Some(match payload {
            Payload::TrailStart(start) => {
                context.keys.note(start.key.as_ref().map(|key| &key.trail));
                Self::Start(Box::new(start))
            }
            Payload::SessionStart(session) => {
                let key = session.key.as_ref();
                context.keys.note(key.map(|key| &key.trail));
                Self::Session(Box::new(session))
            }
            Payload::KeyRotate(rotate) => {
                context.keys.note(Some(&rotate.key));
                Self::Rotate(Box::new(rotate))
            }
            Payload::Checkpoint(checkpoint) => {
                Self::Checkpoint(Signed::read(&checkpoint.note, &context.keys))
            }
            Payload::Cosignature(cosignature) => {
                Self::Cosignature(Cosigned::read(&cosignature.note, &context.witnesses))
            }
            Payload::SegmentEnd(end) => Self::SegmentEnd(end),
            Payload::SegmentStart(start) => Self::SegmentStart(start),
            Payload::TrailEnd(end) => Self::End(Box::new(end)),
            _ => return None,
        })
    }
}

impl Signed {
    fn read(note: &str, keys: &KeyCache) -> Self {
        let note = Note::parse(note.as_bytes());
        let opened = note.as_ref().ok().and_then(|note| {
            let key = keys.signer_of(note)?;
            let opened = Checkpoint::open(note, &key);
            Some((key, opened))
        });
        Self { note, opened }
    }

    /// The checkpoint by this key, and the digest of its text.
    pub(super) fn open(self, key: &VerifierKey) -> Result<(Checkpoint, Digest), String> {
        let note = self.note.map_err(|error| error.to_string())?;
        let opened = match self.opened {
            Some((guess, opened)) if *guess == *key => opened,
            _ => Checkpoint::open(&note, key),
        };
        match opened {
            Ok(checkpoint) => Ok((checkpoint, text_digest(&note))),
            Err(error) => Err(with_cause(&error)),
        }
    }
}

impl Cosigned {
    fn read(note: &str, witnesses: &[VerifierKey]) -> Result<Self, String> {
        let note = Note::parse(note.as_bytes()).map_err(|error| error.to_string())?;
        let checkpoint: Checkpoint = note.text().parse().map_err(|error| format!("{error}"))?;
        let verified = match note.verify(witnesses) {
            Ok(verified) => verified,
            Err(VerifyError::Unverified) => Vec::new(),
            Err(error) => return Err(error.to_string()),
        };
        let place = |key: &VerifierKey| witnesses.iter().position(|witness| witness == key);
        let witnesses = verified.iter().filter_map(|by| place(by.key)).collect();
        Ok(Self {
            text: text_digest(&note),
            size: checkpoint.size(),
            witnesses,
        })
    }
}

fn text_digest(note: &Note) -> Digest {
    Digest(Sha256::digest(note.text()).into())
}

/// An error and what caused it, in one line.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_cause(cause)),
        None => error.to_string(),
    }
}

/// Keys that are kept; a trail changes its key rarely.
const CACHED: usize = 32;

/// The trail's newest keys as its records state them. Nothing here is
/// trusted: it only spares the fold from checking signatures itself, which
/// compares the key before it uses what another thread found with it.
#[derive(Default)]
pub(super) struct KeyCache {
    keys: Mutex<VecDeque<Arc<VerifierKey>>>,
}

impl KeyCache {
    fn note(&self, key: Option<&String>) {
        let Some(Ok(key)) = key.map(|key| key.parse::<VerifierKey>()) else {
            return;
        };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() == CACHED {
            keys.pop_front();
        }
        keys.push_back(Arc::new(key));
    }

    fn signer_of(&self, note: &Note) -> Option<Arc<VerifierKey>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = |key: &&Arc<VerifierKey>| {
            let mut lines = note.signatures().iter();
            lines.any(|line| line.id == key.id() && line.name == key.name())
        };
        keys.iter().rev().find(signed).cloned()
    }
}
