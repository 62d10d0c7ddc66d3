//! One question to one witness.

use super::super::address::Address;
use super::super::http::{Answer, post};
use super::{Trail, WitnessTarget, history, lock};
use sandtrace_audit_chain::checkpoint::Checkpoint;
use sandtrace_audit_chain::merkle::Growth;
use sandtrace_audit_chain::note::{Note, SignatureLine, VerifyError};
use sandtrace_audit_chain::witness::{AddCheckpoint, cosignatures};
use sandtrace_event::Cosignature;
use std::fmt;
use std::io;
use std::time::Duration;

/// Longest time for one request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most signature lines that are taken from one answer.
const MAX_LINES: usize = 8;

/// Length of the signature in a cosignature: its time and 64 bytes.
const COSIGNATURE: usize = 72;

/// Why there is no cosignature.
#[derive(Debug)]
pub(super) enum AskError {
    /// Nobody answered: the next checkpoint may find somebody.
    Away(io::Error),
    /// The witness saw more of this trail (`seen` records) than there is.
    RolledBack { seen: u64, size: u64 },
    /// The witness saw other records.
    Forked(String),
    /// The witness says no, with an HTTP status and a line.
    Refused { status: u16, why: String },
    /// The answer cannot be used.
    Useless(String),
    /// The trail cannot be read back.
    History(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(error) => write!(f, "no answer: {error}"),
            Self::RolledBack { seen, size } => write!(
                f,
                "it has seen {seen} records of this trail, which has {size}: the trail was \
                 rolled back, or somebody else writes it too"
            ),
            Self::Forked(how) => write!(f, "it has seen other records of this trail: {how}"),
            Self::Refused { status, why } => write!(f, "it refuses ({status}): {why}"),
            Self::Useless(why) => write!(f, "its signature cannot be used: {why}"),
            Self::History(error) => write!(f, "reading the trail back for it: {error}"),
        }
    }
}

/// A checkpoint that is to be cosigned.
pub(super) struct Question<'a> {
    pub(super) target: &'a WitnessTarget,
    pub(super) trail: &'a Trail,
    pub(super) note: Note,
    pub(super) checkpoint: Checkpoint,
}

impl Question<'_> {
    /// Asks. `growth` ends at the checkpoint or is not known; afterwards it
    /// begins with what the witness has seen, as far as that is known.
    pub(super) fn ask(&self, growth: &mut Option<Growth>) -> Result<Cosignature, AskError> {
        let size = self.checkpoint.size();
        let mut introduced = false;
        let mut corrected = false;
        loop {
            let old = growth.as_ref().map_or(0, |growth| growth.old().end());
            let answer = self.send(growth.as_ref(), old)?;
            match answer.status {
                200 => {
                    let signed = self.read(&answer.body)?;
                    let seen = match growth.take() {
                        Some(growth) => growth.tree(),
                        None => self.history(size)?.tree(),
                    };
                    *growth = Some(Growth::since(seen));
                    return Ok(signed);
                }
                403 | 404 if !introduced => {
                    introduced = true;
                    self.introduce()?;
                }
                409 => {
                    let seen = conflict(&answer).ok_or_else(|| refused(&answer))?;
                    if seen > size {
                        return Err(AskError::RolledBack { seen, size });
                    }
                    if seen == old || corrected {
                        let why = format!("another checkpoint of {seen} records");
                        return Err(AskError::Forked(why));
                    }
                    corrected = true;
                    *growth = Some(self.history(seen)?);
                }
                422 => return Err(AskError::Forked(said(&answer))),
                _ => return Err(refused(&answer)),
            }
        }
    }

    fn send(&self, growth: Option<&Growth>, old: u64) -> Result<Answer, AskError> {
        let request = AddCheckpoint {
            old,
            proof: growth.and_then(Growth::proof).unwrap_or_default(),
            note: self.note.clone(),
        };
        self.post("/add-checkpoint", request.to_string().as_bytes())
    }

    /// Tells the witness whose key signs this trail. Keys that it knows
    /// already, or that were replaced, do no harm.
    fn introduce(&self) -> Result<(), AskError> {
        let certificates = lock(&self.trail.certificates).clone();
        let mut last = None;
        for certificate in &certificates {
            last = Some(self.post("/add-log", certificate.as_bytes())?);
        }
        match last {
            Some(answer) if answer.status != 200 => Err(refused(&answer)),
            _ => Ok(()),
        }
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<Answer, AskError> {
        let address = &self.target.address;
        let (host, prefix) = match address {
            Address::Unix(_) => ("localhost", ""),
            Address::Tcp { host, prefix } => (host.as_str(), prefix.as_str()),
        };
        let path = format!("{prefix}{path}");
        address
            .connect(PATIENCE)
            .and_then(|mut stream| post(&mut stream, host, &path, body))
            .map_err(AskError::Away)
    }

    fn history(&self, seen: u64) -> Result<Growth, AskError> {
        let (size, root) = (self.checkpoint.size(), self.checkpoint.root());
        history::growth(&self.trail.path, seen, size, &root).map_err(AskError::History)
    }

    /// The note with the witness's signature.
    fn read(&self, answer: &[u8]) -> Result<Cosignature, AskError> {
        let useless = |why: String| AskError::Useless(why);
        let lines = cosignatures(&self.note, answer).map_err(|error| useless(error.to_string()))?;
        let mut note = self.note.clone();
        let is_fit = |line: &&SignatureLine| self.is_fit(line);
        for line in lines.iter().filter(is_fit).take(MAX_LINES) {
            note.attach(line.clone());
        }
        if note.signatures().len() == self.note.signatures().len() {
            return Err(useless("there is none in its answer".to_owned()));
        }
        if let Some(key) = &self.target.key {
            let verified = note.verify(std::slice::from_ref(key));
            verified.map_err(|error: VerifyError| useless(error.to_string()))?;
        }
        Ok(Cosignature {
            note: note.to_string(),
            witness: self.target.address.to_string(),
        })
    }

    /// Whether it can be a cosignature, by the witness's key where that is known.
    fn is_fit(&self, line: &SignatureLine) -> bool {
        let by_key = match &self.target.key {
            Some(key) => (line.name.as_str(), line.id) == (key.name(), key.id()),
            None => line.name != self.checkpoint.origin(),
        };
        by_key && line.blob.len() == COSIGNATURE
    }
}

fn conflict(answer: &Answer) -> Option<u64> {
    let form = answer.form.split(';').next().unwrap_or_default();
    let is_size = form.trim().eq_ignore_ascii_case("text/x.tlog.size");
    let digits = std::str::from_utf8(&answer.body).ok()?.strip_suffix('\n')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_size && is_number).then(|| digits.parse().ok())?
}

fn refused(answer: &Answer) -> AskError {
    AskError::Refused {
        status: answer.status,
        why: said(answer),
    }
}

/// The first of what a witness says; it is somebody else's text.
fn said(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}
