//! How a trail begins: anew, or where an earlier one stopped.

use super::moment::now;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::note::SigningKey;
use sandtrace_audit_chain::{
    Existing, Resumed, SegmentLimits, SignError, TrailIdentity, TrailSigner, TrailWriter,
};
use sandtrace_event::{BreakReason, Payload, PriorTrail, SessionStart, TrailStart};
use sandtrace_sys::clock;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a trail is to be.
#[derive(Clone)]
pub(crate) struct TrailPlan {
    pub(crate) path: PathBuf,
    pub(crate) identity: TrailIdentity,
    pub(crate) origin: String,
    /// Who vouches for the trail's key; nobody signs where there is none.
    pub(crate) host_key: Option<Arc<SigningKey>>,
    pub(crate) limits: SegmentLimits,
    /// The trail of this sandbox before, where it is known.
    pub(crate) previous: Option<PriorTrail>,
}

/// A trail to write, and what its first record must be.
pub(crate) struct Opened {
    pub(crate) writer: TrailWriter,
    pub(crate) opening: Opening,
}

/// What the first record is.
pub(crate) enum Opening {
    Start { previous: Option<PriorTrail> },
    Session(Box<SessionStart>),
}

impl Opening {
    /// Whether no earlier session or trail is known that may have seen more.
    pub(crate) fn is_first(&self) -> bool {
        matches!(self, Self::Start { previous: None })
    }

    /// The record, from what a new trail would say.
    pub(crate) fn record(self, start: TrailStart) -> Payload {
        match self {
            Self::Start { previous } => TrailStart { previous, ..start }.into(),
            Self::Session(session) => SessionStart {
                boot_id: start.boot_id,
                capture: start.capture,
                policy_digest: start.policy_digest,
                tool_version: start.tool_version,
                ..*session
            }
            .into(),
        }
    }
}

impl TrailPlan {
    /// Makes the trail, or goes on with the one that is there. What cannot be
    /// gone on with is never touched: a new trail beside it refers to it.
    pub(crate) fn open(self) -> Result<Opened, Failure> {
        if !self.path.exists() {
            return self.create();
        }
        if !self.path.is_file() {
            return Err(self.exists("it is no regular file"));
        }
        match Existing::open(&self.path).or_exit(Exit::CannotCreate)? {
            Existing::Resumable(resumed) => self.resume(*resumed),
            Existing::Broken(prior) if prior.reason == BreakReason::Sealed => {
                Err(self.exists("it is sealed"))
            }
            Existing::Broken(prior)
                if prior.size.0 == 0 && prior.reason != BreakReason::Rollback =>
            {
                Err(self.exists("no trail can go on there"))
            }
            Existing::Broken(prior) => {
                let path = beside(&self.path);
                show::tell(&format!(
                    "sandtrace: trail {}: {}; it is left as it is, {} goes on for it",
                    self.path.display(),
                    prior.detail,
                    path.display()
                ));
                Self {
                    path,
                    previous: Some(prior),
                    ..self
                }
                .create()
            }
        }
    }

    fn exists(&self, why: &str) -> Failure {
        let message = format!(
            "trail {} exists, and {why}; choose another path or move it away",
            self.path.display()
        );
        Failure::new(Exit::CannotCreate, message)
    }

    fn create(self) -> Result<Opened, Failure> {
        let writer = match self.signer(&self.origin)? {
            Some(signer) => TrailWriter::create_signed(&self.path, self.identity, signer),
            None => TrailWriter::create(&self.path, self.identity),
        };
        Ok(Opened {
            writer: writer
                .or_exit(Exit::CannotCreate)?
                .with_segments(self.limits),
            opening: Opening::Start {
                previous: self.previous,
            },
        })
    }

    fn resume(self, resumed: Resumed) -> Result<Opened, Failure> {
        let start = resumed.trail_start();
        let (origin, signed) = (start.origin.clone(), start.key.is_some());
        let Some(identity) = resumed.identity() else {
            return Err(self.exists("its nonce cannot be read"));
        };
        if identity.sandbox_id != self.identity.sandbox_id {
            let why = format!("it is that of sandbox {}", identity.sandbox_id);
            return Err(self.exists(&why));
        }
        let signer = if signed { self.signer(&origin)? } else { None };
        if signed && signer.is_none() {
            return Err(self.exists("it is signed, which this trail is not to be"));
        }
        let (writer, session) = resumed
            .resume(identity, signer, self.limits, (now(), clock::boot_us()))
            .or_exit(Exit::Io)?;
        show::tell(&format!(
            "sandtrace: trail {} stopped without an end after {} records; it goes on ({} torn bytes set aside)",
            self.path.display(),
            session.prior_size,
            session.torn_bytes
        ));
        Ok(Opened {
            writer,
            opening: Opening::Session(Box::new(session)),
        })
    }

    fn signer(&self, origin: &str) -> Result<Option<TrailSigner>, Failure> {
        let signer = |host: &Arc<SigningKey>| -> Result<TrailSigner, SignError> {
            TrailSigner::new(origin, host)
        };
        let signer = self.host_key.as_ref().map(signer).transpose();
        signer
            .context("make a key for the trail")
            .or_exit(Exit::Internal)
    }
}

/// A free name beside a trail that cannot go on.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".after-{}", clock::wall_ns() / 1_000_000));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}
