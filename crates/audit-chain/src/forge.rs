//! Trails made outside of the writer, as an attacker makes them: events in
//! any order, chained and signed anew with keys of one's own choice.
//!
//! For tests and `sandtrace demo tamper`. It can do nothing that anybody with
//! a text editor and a library cannot: what it makes passes as genuine exactly
//! where [`crate::verify()`] is told too little to know better.

use crate::Counts;
use crate::checkpoint::{Checkpoint, CheckpointError, certify};
use crate::line::{EncodeError, seal};
use crate::merkle::CompactRange;
use crate::note::{Algorithm, KeyError, Note, NoteError, SigningKey};
use sandtrace_event::{AuditEvent, Count, Digest, EventType, Payload, TrailKey};
use sha2::{Digest as _, Sha256};

/// Why a trail cannot be forged.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// A record has no line.
    #[error("sealing a forged record")]
    Encode(#[from] EncodeError),
    /// A key's name is not allowed.
    #[error("making a key for a forged trail")]
    Key(#[from] KeyError),
    /// A text cannot be signed.
    #[error("signing a forged note")]
    Note(#[from] NoteError),
    /// An origin is no origin.
    #[error("making a forged checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// A record is not JSON of this schema.
    #[error("reading the trail to forge")]
    Read(#[from] serde_json::Error),
}

/// Somebody who signs: a host with its key, and the keys of its trails.
pub struct Signer {
    /// The host's key.
    pub host: SigningKey,
    /// Who cosigns what `cosignature` records hold.
    pub witnesses: Vec<SigningKey>,
    /// Makes the trails' keys, so that one seed always gives the same trail.
    seed: [u8; 32],
}

impl Signer {
    /// A host of this name whose keys all come from a seed.
    ///
    /// # Errors
    /// The name is not allowed.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, ForgeError> {
        let secret = derived(&seed, "host", 0);
        Ok(Self {
            host: SigningKey::new(name, Algorithm::Ed25519, &secret)?,
            witnesses: Vec::new(),
            seed,
        })
    }

    /// As [`Self::from_seed`], with a witness of that name.
    ///
    /// # Errors
    /// The name is not allowed.
    pub fn with_witness(mut self, name: &str) -> Result<Self, ForgeError> {
        let number = self.witnesses.len();
        let secret = derived(&self.seed, "witness", number);
        let witness = SigningKey::new(name, Algorithm::CosignatureV1, &secret)?;
        self.witnesses.push(witness);
        Ok(self)
    }

    /// The trail's key after `epoch` changes.
    fn trail(&self, origin: &str, epoch: usize) -> Result<SigningKey, KeyError> {
        SigningKey::new(
            origin,
            Algorithm::Ed25519,
            &derived(&self.seed, origin, epoch),
        )
    }
}

fn derived(seed: &[u8; 32], what: &str, number: usize) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed);
    hasher.update(what);
    hasher.update(number.to_string());
    hasher.finalize().into()
}

/// Reads every line of a trail, whatever it proves.
///
/// # Errors
/// A line is no record.
pub fn events(trail: &[u8]) -> Result<Vec<AuditEvent>, ForgeError> {
    let lines = trail.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    Ok(lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?)
}

/// What [`reseal`] makes fit.
#[derive(Clone, Copy, Default)]
pub struct Reseal<'a> {
    /// Who signs anew, if anybody does. Everything that is signed, and
    /// everything that speaks of the records before it, is made to fit then;
    /// what a `checkpoint` or a certificate held before does not matter.
    pub signer: Option<&'a Signer>,
    /// Events before this place stay as they are.
    pub from: usize,
    /// Leaves `seq` as it is.
    pub keep_seq: bool,
}

/// Chains the events anew and gives their lines.
///
/// # Errors
/// A record cannot be made.
pub fn reseal(events: &mut [AuditEvent], how: Reseal<'_>) -> Result<Vec<Vec<u8>>, ForgeError> {
    let mut forge = Forge::default();
    let mut lines = Vec::with_capacity(events.len());
    for (place, event) in events.iter_mut().enumerate() {
        if !how.keep_seq {
            event.seq = Count(forge.tree.end().saturating_add(1));
        }
        event.prev_hash = forge.head;
        if let Some(signer) = how.signer.filter(|_| place >= how.from) {
            forge.fit(event, signer)?;
        }
        let mut line = Vec::new();
        seal(event, &mut line)?;
        lines.push(line);
        forge.add(event);
    }
    Ok(lines)
}

/// The records so far.
#[derive(Default)]
struct Forge {
    head: Option<Digest>,
    tree: CompactRange,
    counts: Counts,
    origin: String,
    key: Option<SigningKey>,
    epochs: usize,
    newest: Option<Note>,
    signed: u64,
}

impl Forge {
    fn add(&mut self, event: &AuditEvent) {
        if let Payload::TrailStart(start) = &event.payload {
            self.origin.clone_from(&start.origin);
        }
        self.head = Some(event.record_hash);
        self.tree.push_record(&event.record_hash);
        let verdict = event.verdict.as_ref().map(|verdict| verdict.result);
        self.counts.add(event.event_type, verdict);
    }

    /// Makes a record say what is true of the records before it.
    fn fit(&mut self, event: &mut AuditEvent, signer: &Signer) -> Result<(), ForgeError> {
        let size = Count(self.tree.end());
        let root = self.tree.root().unwrap_or(Digest([0; 32]));
        match &mut event.payload {
            Payload::TrailStart(start) => {
                self.origin.clone_from(&start.origin);
                if let Some(key) = &mut start.key {
                    *key = self.certified(signer)?;
                }
            }
            Payload::SessionStart(session) => {
                session.prior_size = size;
                session.prior_hash = self.head.unwrap_or(Digest([0; 32]));
                session.signed_size = Count(self.signed);
                if let Some(key) = &mut session.key {
                    *key = self.certified(signer)?;
                }
            }
            Payload::KeyRotate(rotate) => {
                let next = self.next_key(signer)?;
                if let Some(key) = &self.key {
                    rotate.certificate = certify(next.verifier(), key)?.to_string();
                }
                rotate.key = next.verifier().to_string();
                self.key = Some(next);
            }
            Payload::Checkpoint(checkpoint) => {
                if let Some(key) = &self.key {
                    let note = Checkpoint::new(&self.origin, size.0, root)?.sign(key)?;
                    checkpoint.note = note.to_string();
                    self.newest = Some(note);
                    self.signed = size.0;
                }
            }
            Payload::Cosignature(cosignature) => {
                if let Some(newest) = &self.newest {
                    let mut note = newest.clone();
                    let seconds = event.wall_time.0 / 1_000_000_000;
                    for witness in &signer.witnesses {
                        note.sign(witness, seconds);
                    }
                    cosignature.note = note.to_string();
                }
            }
            Payload::SegmentEnd(end) => (end.size, end.root) = (size, root),
            Payload::SegmentStart(start) => (start.size, start.root) = (size, root),
            Payload::TrailEnd(end) => {
                end.events = self.counts.events();
                end.verdicts = self.counts.verdicts();
            }
            _ => {}
        }
        Ok(())
    }

    fn certified(&mut self, signer: &Signer) -> Result<TrailKey, ForgeError> {
        let key = self.next_key(signer)?;
        let told = TrailKey {
            certificate: certify(key.verifier(), &signer.host)?.to_string(),
            host: signer.host.verifier().to_string(),
            trail: key.verifier().to_string(),
        };
        self.key = Some(key);
        Ok(told)
    }

    fn next_key(&mut self, signer: &Signer) -> Result<SigningKey, ForgeError> {
        let key = signer.trail(&self.origin, self.epochs)?;
        self.epochs += 1;
        Ok(key)
    }
}

/// An event like `model` with other content, which [`reseal`] puts into the
/// chain.
#[must_use]
pub fn like(model: &AuditEvent, payload: impl Into<Payload>) -> AuditEvent {
    let payload = payload.into();
    AuditEvent {
        event_type: payload.event_type(),
        payload,
        verdict: None,
        ..model.clone()
    }
}

/// A key that claims to be the trail's; [`reseal`] makes it a real one.
#[must_use]
pub fn unmade_key() -> TrailKey {
    TrailKey {
        certificate: String::new(),
        host: String::new(),
        trail: String::new(),
    }
}

/// The place of the first event of a type.
#[must_use]
pub fn position(events: &[AuditEvent], event_type: EventType) -> Option<usize> {
    events
        .iter()
        .position(|event| event.event_type == event_type)
}
