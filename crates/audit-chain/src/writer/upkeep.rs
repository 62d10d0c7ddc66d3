//! What a signed trail needs beside its events: checkpoints, the file that
//! holds the newest one, the next key, the next file.

use super::{Batch, SignError, TrailSigner, TrailWriter, WriteError, control};
use crate::segments;
use sandtrace_event::{Checkpoint, KeyRotate, Timestamp};

/// Longest time that a checkpoint is in the trail but not beside it, in
/// microseconds. Replacing a file costs three times what a commit does; under
/// load the trail has hundreds of checkpoints a second.
const FILE_TIME_US: u64 = 100_000;

/// The file beside the trail that holds the newest checkpoint.
#[derive(Default)]
pub(super) struct CheckpointFile {
    /// The note that is to be put there.
    waiting: Option<String>,
    replaced_us: Option<u64>,
}

impl CheckpointFile {
    fn due_us(&self) -> Option<u64> {
        self.waiting.as_ref()?;
        let replaced = self.replaced_us?;
        Some(replaced.saturating_add(FILE_TIME_US))
    }

    fn is_due(&self, now_us: u64) -> bool {
        self.waiting.is_some() && self.due_us().is_none_or(|due| now_us >= due)
    }
}

impl TrailWriter {
    /// When [`commit`](Self::commit) or [`upkeep`](Self::upkeep) is due at the
    /// latest; `None` where nothing is.
    #[must_use]
    pub fn next_due_us(&self) -> Option<u64> {
        if let Some(commit) = self.commit_deadline_us() {
            // Nothing is signed before it is durable.
            return Some(commit);
        }
        let signing = self.signer.as_ref().filter(|_| !self.appended.has_ended());
        let due = [
            signing.and_then(TrailSigner::due_us),
            self.checkpoint_file.due_us(),
        ];
        due.into_iter().flatten().min()
    }

    /// Does what is due beside writing events. Call it after a commit and when
    /// [`next_due_us`](Self::next_due_us) says so; while records wait for
    /// their commit it does nothing. `at` is the moment that new records bear.
    /// Gives back what was acknowledged meanwhile.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), or nothing can be signed.
    pub fn upkeep(&mut self, at: Timestamp, now_us: u64) -> Result<Batch, WriteError> {
        self.check_usable()?;
        if !self.batch.is_empty() || self.appended.has_ended() {
            return Ok(Batch::default());
        }
        if self.is_checkpoint_due(now_us) {
            self.checkpoint(at, now_us)?;
            if self.is_key_old(now_us) {
                self.rotate_key(at, now_us)?;
            }
        }
        let acknowledged = self.rotate_segment(at, now_us)?;
        if self.checkpoint_file.is_due(now_us) {
            self.replace_checkpoint_file(now_us)?;
        }
        Ok(acknowledged)
    }

    /// After the `trail_end`: signs the whole trail.
    ///
    /// # Errors
    /// As [`upkeep`](Self::upkeep).
    pub fn seal(&mut self, at: Timestamp, now_us: u64) -> Result<Batch, WriteError> {
        let mut acknowledged = self.commit()?;
        if self.signer.is_some() {
            self.checkpoint(at, now_us)?;
            acknowledged.append(self.commit()?);
            self.replace_checkpoint_file(now_us)?;
        }
        Ok(acknowledged)
    }

    fn is_checkpoint_due(&self, now_us: u64) -> bool {
        let due = self.signer.as_ref().and_then(TrailSigner::due_us);
        due.is_some_and(|due| now_us >= due)
    }

    fn is_key_old(&self, now_us: u64) -> bool {
        let signer = self.signer.as_ref();
        signer.is_some_and(|signer| signer.is_key_old(now_us))
    }

    /// Appends a checkpoint over all records, which are durable.
    fn checkpoint(&mut self, at: Timestamp, now_us: u64) -> Result<(), WriteError> {
        let (size, root) = self.appended.tree_head();
        let path = &self.path;
        let Some(signer) = &mut self.signer else {
            return Ok(());
        };
        let note = signer.sign(size, root).map_err(|source| WriteError::Sign {
            path: path.clone(),
            source,
        })?;
        signer.signed(now_us);
        self.checkpoint_file.waiting = Some(note.clone());
        self.append(control(at, Checkpoint { note }), now_us)?;
        Ok(())
    }

    fn rotate_key(&mut self, at: Timestamp, now_us: u64) -> Result<(), WriteError> {
        let path = &self.path;
        let Some(signer) = &mut self.signer else {
            return Ok(());
        };
        let sign = |source: SignError| WriteError::Sign {
            path: path.clone(),
            source,
        };
        let (certificate, key) = signer.prepare_next().map_err(sign)?;
        self.append(control(at, KeyRotate { certificate, key }), now_us)?;
        Ok(())
    }

    fn replace_checkpoint_file(&mut self, now_us: u64) -> Result<(), WriteError> {
        let Some(note) = self.checkpoint_file.waiting.take() else {
            return Ok(());
        };
        self.checkpoint_file.replaced_us = Some(now_us);
        let path = segments::checkpoint_path(&self.path);
        let store = &mut self.store;
        store
            .write_replacement(&path, &note)
            .and_then(|()| store.replace(&path))
            .and_then(|()| store.sync_directory(&path))
            .map_err(|source| self.failure("replacing the checkpoint beside", source))
    }
}
