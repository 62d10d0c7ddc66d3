//! A trail's key, and when a checkpoint is due.

use super::SignError;
use crate::checkpoint::{Checkpoint, certify};
use crate::note::{Algorithm, SigningKey};
use sandtrace_event::{Cadence, Count, Digest, EventType, TrailKey, VerdictResult};
use zeroize::Zeroizing;

/// Most records that wait for a checkpoint.
pub const CHECKPOINT_RECORDS: u64 = 1024;
/// Longest time that a record waits for one, in microseconds.
const CHECKPOINT_TIME_US: u64 = 10_000_000;
/// Time between two checkpoints while nothing happens, so that silence is
/// provable, in microseconds.
const HEARTBEAT_US: u64 = 60_000_000;
/// Time after which the next key takes over, in microseconds: a key that is
/// stolen later signs nothing that is older.
const KEY_LIFE_US: u64 = 3_600_000_000;

/// Signs the checkpoints of one trail.
///
/// Its key is made here, is nowhere but in memory, and is overwritten when it
/// goes or hands over.
pub struct TrailSigner {
    origin: String,
    key: SigningKey,
    declared: TrailKey,
    /// The key that a `key_rotate` names which is not durable yet.
    next: Option<SigningKey>,
    key_since_us: Option<u64>,
    /// Records since the last checkpoint, those about signatures not counted.
    unsigned: u64,
    unsigned_since_us: Option<u64>,
    last_checkpoint_us: Option<u64>,
    urgent: bool,
}

impl TrailSigner {
    /// Makes the key of the trail `origin`, and has `host` certify it.
    ///
    /// # Errors
    /// No key can be made, or none with this name.
    pub fn new(origin: &str, host: &SigningKey) -> Result<Self, SignError> {
        let key = random_key(origin)?;
        let declared = TrailKey {
            certificate: certify(key.verifier(), host)?.to_string(),
            host: host.verifier().to_string(),
            trail: key.verifier().to_string(),
        };
        Ok(Self {
            origin: origin.to_owned(),
            key,
            declared,
            next: None,
            key_since_us: None,
            unsigned: 0,
            unsigned_since_us: None,
            last_checkpoint_us: None,
            urgent: false,
        })
    }

    /// What the trail says of its first key.
    pub(super) fn declared(&self) -> &TrailKey {
        &self.declared
    }

    /// A record was appended.
    pub(super) fn note_record(
        &mut self,
        event_type: EventType,
        verdict: Option<VerdictResult>,
        now_us: u64,
    ) {
        self.key_since_us.get_or_insert(now_us);
        self.last_checkpoint_us.get_or_insert(now_us);
        let about_signatures = matches!(
            event_type,
            EventType::Checkpoint | EventType::Cosignature | EventType::KeyRotate
        );
        // They would call for checkpoints of checkpoints without end.
        if about_signatures {
            return;
        }
        self.unsigned += 1;
        self.unsigned_since_us.get_or_insert(now_us);
        self.urgent |= verdict == Some(VerdictResult::Deny) || event_type == EventType::TrailEnd;
    }

    /// When a checkpoint is due; `None` before the first record.
    pub(super) fn due_us(&self) -> Option<u64> {
        if self.urgent || self.unsigned >= CHECKPOINT_RECORDS {
            return Some(0);
        }
        let heartbeat = self.last_checkpoint_us?.saturating_add(HEARTBEAT_US);
        let waiting = self
            .unsigned_since_us
            .map_or(u64::MAX, |since| since.saturating_add(CHECKPOINT_TIME_US));
        Some(heartbeat.min(waiting))
    }

    /// Whether as many records wait for a checkpoint as may.
    pub(super) fn is_full(&self) -> bool {
        self.unsigned >= CHECKPOINT_RECORDS
    }

    /// The signed note over the first `size` records.
    pub(super) fn sign(&self, size: u64, root: Digest) -> Result<String, SignError> {
        let checkpoint = Checkpoint::new(&self.origin, size, root)?;
        Ok(checkpoint.sign(&self.key)?.to_string())
    }

    /// All records so far are signed.
    pub(super) fn signed(&mut self, now_us: u64) {
        self.unsigned = 0;
        self.unsigned_since_us = None;
        self.urgent = false;
        self.last_checkpoint_us = Some(now_us);
    }

    /// What was signed last did not become part of the trail.
    pub(super) fn sign_again(&mut self) {
        self.urgent = true;
        self.next = None;
    }

    /// Whether the key is so old that the next one should take over.
    pub(super) fn is_key_old(&self, now_us: u64) -> bool {
        let since = self.key_since_us.unwrap_or(now_us);
        self.next.is_none() && now_us.saturating_sub(since) >= KEY_LIFE_US
    }

    /// Makes the next key: its certificate by the old one, and its text form.
    pub(super) fn prepare_next(&mut self) -> Result<(String, String), SignError> {
        let next = random_key(&self.origin)?;
        let certificate = certify(next.verifier(), &self.key)?.to_string();
        let text = next.verifier().to_string();
        self.next = Some(next);
        Ok((certificate, text))
    }

    /// The hand-over is durable: the old key is overwritten.
    pub(super) fn hand_over(&mut self, now_us: u64) {
        if let Some(next) = self.next.take() {
            self.key = next;
            self.key_since_us = Some(now_us);
        }
    }
}

/// What `trail_start` promises.
pub(super) fn cadence() -> Cadence {
    Cadence {
        heartbeat_s: Count(HEARTBEAT_US / 1_000_000),
        records: Count(CHECKPOINT_RECORDS),
        seconds: Count(CHECKPOINT_TIME_US / 1_000_000),
    }
}

fn random_key(name: &str) -> Result<SigningKey, SignError> {
    let mut secret = Zeroizing::new([0; 32]);
    rustix::rand::getrandom(secret.as_mut_slice(), rustix::rand::GetRandomFlags::empty())?;
    Ok(SigningKey::new(name, Algorithm::Ed25519, &secret)?)
}
