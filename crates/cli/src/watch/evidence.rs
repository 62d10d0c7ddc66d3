//! Where frames are kept as they were.

use crate::args::EvidenceArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use sandtrace_audit_chain::TrailIdentity;
use sandtrace_capture::network::EvidenceConfig;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

/// A directory for the frames of every sandbox that is watched.
pub(crate) struct Keeping {
    directory: PathBuf,
    max_bytes: u64,
}

impl Keeping {
    /// Makes the directory where it is not there yet; `None` where nothing is
    /// to be kept.
    pub(crate) fn from_args(args: &EvidenceArgs) -> Result<Option<Self>, Failure> {
        let Some(directory) = &args.evidence_pcap else {
            return Ok(None);
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("create directory {} for evidence", directory.display()))
            .or_exit(Exit::CannotCreate)?;
        Ok(Some(Self {
            directory: directory.clone(),
            max_bytes: args.max_size,
        }))
    }

    /// The files of one trail.
    pub(crate) fn of(&self, identity: &TrailIdentity) -> EvidenceConfig {
        EvidenceConfig {
            directory: self.directory.clone(),
            prefix: format!("{}-{:016x}", identity.sandbox_id, identity.nonce),
            max_bytes: self.max_bytes,
        }
    }
}
