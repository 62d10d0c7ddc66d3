//! The keys of a trail, one after the other, and what they signed.

use super::block::Record;
use super::control::{Cosigned, Signed, with_cause};
use super::fault::FaultKind;
use super::report::{CosignedSize, HostKey, Signatures, TrustedCheckpoint};
use crate::checkpoint::certified_key;
use crate::merkle::CompactRange;
use crate::note::{Note, VerifierKey, VerifyError};
use sandtrace_event::{Count, Digest, EventType, KeyRotate, TrailKey, TrailStart};
use std::collections::VecDeque;

/// Checkpoints that a cosignature may still be of.
const REMEMBERED: usize = 1024;
/// Host keys that are told; a trail has one for each session at most.
const HOSTS: usize = 64;
/// Records that may follow the last checkpoint where the trail promises none.
const DEFAULT_CADENCE: u64 = 1024;

/// A signed trail up to here.
pub(super) struct Signing {
    origin: String,
    /// Name of the host's key, which all sessions share.
    host_name: String,
    /// Who signs now.
    key: VerifierKey,
    /// Records between two checkpoints, as the trail promises.
    cadence: u64,
    told: Signatures,
    recent: VecDeque<Remembered>,
    /// Checkpoints of `recent` were forgotten.
    has_forgotten: bool,
}

/// A checkpoint, as far as cosignatures need it.
struct Remembered {
    size: u64,
    text: Digest,
    witnesses: Vec<usize>,
}

/// Where the fold stands when it meets a control record.
pub(super) struct Place<'a> {
    /// Records and bytes before this one.
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) tree: &'a CompactRange,
    /// Type of the record before.
    pub(super) before: Option<EventType>,
    pub(super) record: &'a Record,
}

impl Signing {
    /// Begins with the first record; `None` where the trail is not signed.
    pub(super) fn start(
        start: &TrailStart,
        pins: &[VerifierKey],
    ) -> Result<Option<Self>, FaultKind> {
        let Some(key) = &start.key else {
            return Ok(None);
        };
        let (trail, host) = certified(key, &start.origin, pins)?;
        let cadence = start
            .cadence
            .map_or(DEFAULT_CADENCE, |cadence| cadence.records.0);
        let told = Signatures {
            origin: start.origin.clone(),
            key: trail.clone(),
            keys: 1,
            hosts: Vec::new(),
            all_pinned: true,
            allowed: cadence,
            checkpoints: 0,
            last_checkpoint: None,
            unattested: 0,
            cosigned: Vec::new(),
        };
        let mut signing = Self {
            origin: start.origin.clone(),
            host_name: host.key.name().to_owned(),
            key: trail,
            cadence,
            told,
            recent: VecDeque::new(),
            has_forgotten: false,
        };
        signing.add_host(host);
        Ok(Some(signing))
    }

    /// Another process writes on, with a key of its own.
    pub(super) fn session(
        &mut self,
        key: Option<&TrailKey>,
        pins: &[VerifierKey],
    ) -> Result<(), FaultKind> {
        let key = key.ok_or(FaultKind::Unsigned(
            "a session without a key in a signed trail",
        ))?;
        let (trail, host) = certified(key, &self.origin, pins)?;
        if host.key.name() != self.host_name {
            let message = format!(
                "it is by {}, the first one by {}",
                host.key.name(),
                self.host_name
            );
            return Err(FaultKind::Certificate(message));
        }
        self.add_host(host);
        self.change_key(trail);
        // The process before may have left as many without one.
        self.told.allowed = self.told.allowed.saturating_add(self.cadence);
        Ok(())
    }

    /// The key so far names the next one.
    pub(super) fn rotate(
        &mut self,
        rotate: &KeyRotate,
        before: Option<EventType>,
    ) -> Result<(), FaultKind> {
        if before != Some(EventType::Checkpoint) {
            let message = "a key_rotate without a checkpoint directly before it";
            return Err(FaultKind::Certificate(message.to_owned()));
        }
        let keys = std::slice::from_ref(&self.key);
        let next = named_key(&rotate.certificate, &rotate.key, keys, &self.origin)?;
        self.change_key(next);
        Ok(())
    }

    pub(super) fn checkpoint(
        &mut self,
        signed: Signed,
        place: &Place<'_>,
    ) -> Result<(), FaultKind> {
        let (checkpoint, text) = signed.open(&self.key).map_err(FaultKind::Checkpoint)?;
        let (stated, actual) = (checkpoint.size(), place.records);
        if stated != actual {
            return Err(FaultKind::CheckpointSize { stated, actual });
        }
        // The tree of the fold always begins with the first record.
        let computed = place.tree.root().unwrap_or(Digest([0; 32]));
        if checkpoint.root() != computed {
            return Err(FaultKind::CheckpointRoot {
                stated: checkpoint.root(),
                computed,
            });
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
            self.has_forgotten = true;
        }
        self.recent.push_back(Remembered {
            size: stated,
            text,
            witnesses: Vec::new(),
        });
        self.told.checkpoints += 1;
        self.told.unattested = 0;
        self.told.allowed = self.cadence;
        self.told.last_checkpoint = Some(TrustedCheckpoint {
            seq: place.record.seq,
            size: stated,
            root: computed,
            byte_offset: place.bytes,
        });
        Ok(())
    }

    pub(super) fn cosignature(&mut self, cosigned: Cosigned) -> Result<(), FaultKind> {
        // One that is no longer remembered counts for nothing.
        let oldest = self.recent.front().map(|oldest| oldest.size);
        if self.has_forgotten && oldest.is_some_and(|oldest| cosigned.size < oldest) {
            return Ok(());
        }
        let mut newest_first = self.recent.iter_mut().rev();
        let own = newest_first
            .find(|own| own.size == cosigned.size && own.text == cosigned.text)
            .ok_or_else(|| {
                let message = "it is not of a checkpoint of this trail";
                FaultKind::Cosignature(message.to_owned())
            })?;
        for witness in cosigned.witnesses {
            if !own.witnesses.contains(&witness) {
                own.witnesses.push(witness);
            }
        }
        Ok(())
    }

    /// Counts records that no checkpoint speaks of yet.
    pub(super) fn unattested(&mut self, records: u64) {
        self.told.unattested += records;
    }

    /// Who signs now.
    pub(super) fn key(&self) -> &VerifierKey {
        &self.key
    }

    fn add_host(&mut self, host: HostKey) {
        self.told.all_pinned &= host.pinned;
        if self.told.hosts.len() < HOSTS && !self.told.hosts.contains(&host) {
            self.told.hosts.push(host);
        }
    }

    fn change_key(&mut self, key: VerifierKey) {
        self.told.key = key.clone();
        self.told.keys += 1;
        self.key = key;
    }

    /// What is to be told at the end.
    pub(super) fn finish(mut self) -> Signatures {
        let cosigned = self.recent.into_iter().rev();
        let cosigned = cosigned.filter(|checkpoint| !checkpoint.witnesses.is_empty());
        self.told.cosigned = cosigned
            .map(
                |Remembered {
                     size, witnesses, ..
                 }| CosignedSize { size, witnesses },
            )
            .collect();
        self.told
    }
}

/// The trail's key that a host vouches for, and whether that host is pinned.
fn certified(
    key: &TrailKey,
    origin: &str,
    pins: &[VerifierKey],
) -> Result<(VerifierKey, HostKey), FaultKind> {
    let host: VerifierKey = key
        .host
        .parse()
        .map_err(|error| FaultKind::Certificate(format!("the host's key: {error}")))?;
    let hosts = std::slice::from_ref(&host);
    let trail = named_key(&key.certificate, &key.trail, hosts, origin)?;
    let pinned = pins.contains(&trail) || is_by(&key.certificate, pins)?;
    Ok((trail, HostKey { key: host, pinned }))
}

/// The key that a certificate by one of `signers` names, which must be `stated`.
fn named_key(
    certificate: &str,
    stated: &str,
    signers: &[VerifierKey],
    origin: &str,
) -> Result<VerifierKey, FaultKind> {
    let refused = |error: &dyn std::error::Error| FaultKind::Certificate(with_cause(error));
    let note = Note::parse(certificate.as_bytes()).map_err(|error| refused(&error))?;
    let (key, _) = certified_key(&note, signers, origin).map_err(|error| refused(&error))?;
    if key.to_string() == stated {
        Ok(key)
    } else {
        let message = format!("it names {key}, the record {stated}");
        Err(FaultKind::Certificate(message))
    }
}

/// Whether a pinned key has signed; a wrong signature in its name is a forgery.
fn is_by(certificate: &str, pins: &[VerifierKey]) -> Result<bool, FaultKind> {
    let Ok(note) = Note::parse(certificate.as_bytes()) else {
        return Ok(false);
    };
    match note.verify(pins) {
        Ok(_) => Ok(true),
        Err(VerifyError::Unverified) => Ok(false),
        Err(error) => Err(FaultKind::Certificate(error.to_string())),
    }
}

/// What a `session_start` says of the records before it.
pub(super) fn check_prior(
    prior_size: Count,
    prior_hash: &Digest,
    signed: Count,
    place: &Place<'_>,
    last: Option<&Record>,
) -> Result<(), FaultKind> {
    let same_hash = last.is_some_and(|last| last.hash == prior_hash.to_text());
    if prior_size.0 != place.records {
        Err(FaultKind::Session(
            "prior_size is not the number of records before it",
        ))
    } else if !same_hash {
        Err(FaultKind::Session(
            "prior_hash is not that of the record before it",
        ))
    } else if signed.0 > prior_size.0 {
        Err(FaultKind::Session("more records were signed than are here"))
    } else {
        Ok(())
    }
}
