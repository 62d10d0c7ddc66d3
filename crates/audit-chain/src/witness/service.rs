//! A witness without its network.

use super::Refusal;
use super::request::AddCheckpoint;
use super::store::{MAX_SESSIONS, Memory, Store, StoreError};
use crate::checkpoint::{Checkpoint, certified_key, claimed_key};
use crate::merkle::{empty_root, verify_consistency};
use crate::note::{Note, SigningKey, VerifierKey};
use sandtrace_event::Digest;
use sha2::{Digest as _, Sha256};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whom a witness works for.
#[derive(Debug)]
pub struct WitnessConfig {
    /// The witness's own key, for cosignatures.
    pub key: SigningKey,
    /// Hosts whose trails are taken on: those whose origin is below the
    /// key's name.
    pub hosts: Vec<VerifierKey>,
    /// Other logs; each key's name is its log's origin.
    pub logs: Vec<VerifierKey>,
    /// Most logs that are taken on.
    pub max_logs: usize,
}

/// A witness. Many threads may ask it at once.
#[derive(Debug)]
pub struct Witness {
    config: WitnessConfig,
    store: Store,
    /// Logs in the store.
    count: AtomicUsize,
    /// What happens to one log happens one after the other.
    locks: [Mutex<()>; 64],
    hasher: RandomState,
}

impl Witness {
    /// A witness with what it remembers.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(config: WitnessConfig, store: Store) -> Result<Self, StoreError> {
        Ok(Self {
            config,
            count: AtomicUsize::new(store.count()?),
            store,
            locks: [const { Mutex::new(()) }; 64],
            hasher: RandomState::new(),
        })
    }

    /// Its public key.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        self.config.key.verifier()
    }

    /// How many logs it remembers.
    #[must_use]
    pub fn logs(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// `add-checkpoint`: the signature line for it at `now`, in seconds since
    /// 1970. By then it is on disk that nothing older will ever be signed.
    ///
    /// # Errors
    /// The witness does not sign this.
    pub fn add_checkpoint(&self, body: &[u8], now: u64) -> Result<String, Refusal> {
        let request = AddCheckpoint::parse(body)?;
        let checkpoint: Checkpoint = request.note.text().parse()?;
        let origin = checkpoint.origin();
        let _alone = self.lock(origin);
        let memory = self.store.load(origin)?;
        let keys = self.keys(origin, memory.as_ref());
        if keys.is_empty() {
            return Err(Refusal::UnknownLog(origin.to_owned()));
        }
        let verified = request.note.verify(&keys);
        verified.map_err(|source| Refusal::Untrusted {
            log: origin.to_owned(),
            source,
        })?;
        let newest = memory.as_ref().and_then(|memory| memory.newest.as_ref());
        check_growth(&request, &checkpoint, newest.map(|(newest, _)| newest))?;
        let mut note = Note::unsigned(request.note.text())?;
        note.sign(&self.config.key, now);
        let line = note.signature_lines();
        let seen = newest.map(|(newest, _)| newest.size());
        if seen != Some(checkpoint.size()) {
            let is_new = memory.is_none();
            self.make_room(is_new)?;
            let newest = Some((checkpoint.clone(), note));
            let memory = Memory {
                newest,
                ..memory.unwrap_or_default()
            };
            self.save(origin, &memory, is_new)?;
        }
        Ok(line)
    }

    /// `add-log`: takes on the log that a host's certificate names, or the
    /// next key of a log that its last key has certified.
    ///
    /// # Errors
    /// The certificate is not by anybody who may.
    pub fn add_log(&self, body: &[u8]) -> Result<(), Refusal> {
        let note = Note::parse(body)?;
        let claimed = claimed_key(&note)?;
        let origin = claimed.name();
        let _alone = self.lock(origin);
        let memory = self.store.load(origin)?;
        let is_new = memory.is_none();
        let mut memory = memory.unwrap_or_default();
        if memory.key.as_ref() == Some(&claimed) {
            return Ok(());
        }
        // The log's last key may name the next one, but not one that a host
        // took back.
        let successor = memory
            .key
            .take()
            .filter(|key| certified_key(&note, std::slice::from_ref(key), origin).is_ok());
        let session = Digest(Sha256::digest(claimed.public_key()).into());
        if memory.sessions.contains(&session) {
            return Err(Refusal::RetiredKey(origin.to_owned()));
        }
        if successor.is_none() {
            let (_, host) = certified_key(&note, &self.config.hosts, origin)?;
            require_below(host, origin)?;
            if memory.sessions.len() == MAX_SESSIONS {
                return Err(Refusal::Full(MAX_SESSIONS));
            }
            memory.sessions.push(session);
        }
        self.make_room(is_new)?;
        memory.key = Some(claimed.clone());
        self.save(origin, &memory, is_new)
    }

    /// The newest checkpoint of a log with the witness's signature, as a note.
    ///
    /// # Errors
    /// The log is unknown, or nothing of it was cosigned yet.
    pub fn newest(&self, origin: &str) -> Result<String, Refusal> {
        let _alone = self.lock(origin);
        let memory = self.store.load(origin)?;
        let newest = memory.and_then(|memory| memory.newest);
        newest
            .map(|(_, note)| note.to_string())
            .ok_or_else(|| Refusal::UnknownLog(origin.to_owned()))
    }

    fn keys(&self, origin: &str, memory: Option<&Memory>) -> Vec<VerifierKey> {
        let fixed = self.config.logs.iter();
        let fixed = fixed.filter(|key| key.name() == origin);
        let certified = memory.and_then(|memory| memory.key.as_ref());
        fixed.chain(certified).cloned().collect()
    }

    fn make_room(&self, is_new: bool) -> Result<(), Refusal> {
        if is_new && self.logs() >= self.config.max_logs {
            return Err(Refusal::Full(self.config.max_logs));
        }
        Ok(())
    }

    fn save(&self, origin: &str, memory: &Memory, is_new: bool) -> Result<(), Refusal> {
        self.store.save(origin, memory)?;
        self.count.fetch_add(usize::from(is_new), Ordering::Relaxed);
        Ok(())
    }

    fn lock(&self, origin: &str) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one(origin);
        let place = usize::try_from(hash % 64).unwrap_or_default();
        let [first, ..] = &self.locks;
        let lock = self.locks.get(place).unwrap_or(first);
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the checkpoint continues what was cosigned last.
fn check_growth(
    request: &AddCheckpoint,
    checkpoint: &Checkpoint,
    newest: Option<&Checkpoint>,
) -> Result<(), Refusal> {
    let (old, size) = (request.old, checkpoint.size());
    if old > size {
        return Err(Refusal::OldSize { old, size });
    }
    let cosigned = newest.map_or(0, Checkpoint::size);
    if old != cosigned {
        return Err(Refusal::Conflict { size: cosigned });
    }
    let root = newest.map_or_else(empty_root, Checkpoint::root);
    if old == size && root != checkpoint.root() {
        return Err(Refusal::Forked { size });
    }
    if old > 0 {
        let (old, new) = ((old, &root), (size, &checkpoint.root()));
        verify_consistency(old, new, &request.proof)
            .map_err(|error| Refusal::Proof(error.to_string()))
    } else if request.proof.is_empty() {
        Ok(())
    } else {
        let flaw = "a proof from an empty log has no hashes";
        Err(Refusal::Proof(flaw.to_owned()))
    }
}

/// A host speaks for the logs below its own name.
fn require_below(host: &VerifierKey, origin: &str) -> Result<(), Refusal> {
    let below = origin.strip_prefix(host.name());
    if below.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')) {
        return Ok(());
    }
    Err(Refusal::ForeignHost {
        host: host.name().to_owned(),
        log: origin.to_owned(),
    })
}
