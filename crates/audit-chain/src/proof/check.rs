//! Checks proofs.

use super::Proof;
use crate::checkpoint::{Checkpoint, certified_key};
use crate::envelope::Envelope;
use crate::merkle::{leaf_hash, verify_inclusion};
use crate::note::{Note, VerifierKey};
use crate::witness::WitnessPolicy;
use sandtrace_event::Digest;

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// It cannot be read.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Its parts do not belong together.
    #[error("{0}")]
    Tampered(String),
    /// Nobody who is trusted vouches for it.
    #[error("{0}")]
    Untrusted(String),
}

/// A record that is in a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its `seq`.
    pub seq: u64,
    /// Its hash.
    pub record_hash: Digest,
    /// The trail.
    pub origin: String,
    /// Records of the trail when the checkpoint was signed.
    pub size: u64,
    /// The host that vouches for the trail's key.
    pub host: VerifierKey,
    /// Witnesses of the policy that have cosigned, by their keys' names.
    pub witnesses: Vec<String>,
}

impl Proof {
    /// Checks everything. Without `hosts` the key that the proof itself
    /// claims is taken, which proves no more than that the parts of the
    /// proof belong together.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(
        &self,
        hosts: &[VerifierKey],
        policy: Option<&WitnessPolicy>,
    ) -> Result<Shown, ProofFault> {
        let (seq, record_hash) = self.record()?;
        let text = self.checkpoint.text();
        let checkpoint: Checkpoint = text
            .parse()
            .map_err(|error| ProofFault::Malformed(format!("the checkpoint: {error}")))?;
        let (key, host) = self.key(checkpoint.origin(), hosts)?;
        Checkpoint::open(&self.checkpoint, &key)
            .map_err(|error| ProofFault::Tampered(chain(&error)))?;
        let (size, root) = (checkpoint.size(), checkpoint.root());
        let leaf = leaf_hash(&record_hash.0);
        verify_inclusion(self.index, &leaf, size, &root, &self.inclusion).map_err(|error| {
            ProofFault::Tampered(format!("record {seq} is not proved: {error}"))
        })?;
        Ok(Shown {
            seq,
            record_hash,
            origin: checkpoint.origin().to_owned(),
            size,
            host,
            witnesses: self.witnesses(policy)?,
        })
    }

    fn record(&self) -> Result<(u64, Digest), ProofFault> {
        let line = self.extra.record.as_bytes();
        let envelope = Envelope::parse(line).map_err(|refusal| {
            ProofFault::Malformed(format!("the record, byte {}: {}", refusal.at, refusal.kind))
        })?;
        let computed = envelope.computed_hash(line);
        if computed.to_text() != envelope.record_hash {
            let why = format!("record {} was changed after it was written", envelope.seq);
            return Err(ProofFault::Tampered(why));
        }
        if envelope.seq.checked_sub(1) != Some(self.index) {
            let why = format!("record {} stands at index {}", envelope.seq, self.index);
            return Err(ProofFault::Tampered(why));
        }
        Ok((envelope.seq, computed))
    }

    /// The trail's key, by the chain of certificates.
    fn key(
        &self,
        origin: &str,
        hosts: &[VerifierKey],
    ) -> Result<(VerifierKey, VerifierKey), ProofFault> {
        let malformed = |why: String| ProofFault::Malformed(why);
        let claimed: VerifierKey = self
            .extra
            .host
            .parse()
            .map_err(|error| malformed(format!("the host's key: {error}")))?;
        let own = [claimed];
        let is_pinned = !hosts.is_empty();
        let trusted = if is_pinned { hosts } else { &own };
        let mut found: Option<(VerifierKey, VerifierKey)> = None;
        for certificate in &self.extra.certificates {
            let note = Note::parse(certificate.as_bytes())
                .map_err(|error| malformed(format!("a certificate: {error}")))?;
            found = Some(match found {
                None => {
                    let certified = certified_key(&note, trusted, origin);
                    let (key, host) = certified.map_err(|error| match is_pinned {
                        true => ProofFault::Untrusted(chain(&error)),
                        false => ProofFault::Tampered(chain(&error)),
                    })?;
                    (key, host.clone())
                }
                Some((last, host)) => {
                    let certified = certified_key(&note, std::slice::from_ref(&last), origin);
                    let (key, _) =
                        certified.map_err(|error| ProofFault::Tampered(chain(&error)))?;
                    (key, host)
                }
            });
        }
        found.ok_or_else(|| malformed("there is no certificate in it".to_owned()))
    }

    fn witnesses(&self, policy: Option<&WitnessPolicy>) -> Result<Vec<String>, ProofFault> {
        let Some(policy) = policy else {
            return Ok(Vec::new());
        };
        let keys = policy.witness_keys();
        // Nobody's signature is no quorum; a wrong one is no signature.
        let verified = self.checkpoint.verify(&keys).unwrap_or_default();
        let cosigners = || verified.iter().map(|one| one.key);
        if policy.satisfied_by(cosigners()) {
            return Ok(cosigners().map(|key| key.name().to_owned()).collect());
        }
        let why = format!(
            "{} of the policy's witnesses stand behind the checkpoint: that is no quorum",
            verified.len()
        );
        Err(ProofFault::Untrusted(why))
    }
}

/// An error with its cause.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
