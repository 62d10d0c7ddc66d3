//! Where frames are kept as they were.

use crate::config::EvidencePlace;
use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use sandtrace_audit_chain::TrailIdentity;
use sandtrace_capture::network::EvidenceConfig;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

/// A directory for the frames of every sandbox that is watched.
pub(crate) struct Keeping(EvidencePlace);

impl Keeping {
    /// Makes the directory where it is not there yet.
    pub(crate) fn make(place: &EvidencePlace) -> Result<Self, Failure> {
        let directory = &place.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("create directory {} for evidence", directory.display()))
            .or_exit(Exit::CannotCreate)?;
        Ok(Self(place.clone()))
    }

    /// The files of one trail.
    pub(crate) fn of(&self, identity: &TrailIdentity) -> EvidenceConfig {
        EvidenceConfig {
            directory: self.0.directory.clone(),
            prefix: format!("{}-{:016x}", identity.sandbox_id, identity.nonce),
            max_bytes: self.0.max_bytes,
        }
    }
}
