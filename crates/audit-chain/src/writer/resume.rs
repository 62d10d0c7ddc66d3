//! Going on where a writer stopped without a `trail_end`.

use super::progress::Progress;
use super::segment::Segment;
use super::store::{FileStore, sync_directory_of};
use super::{Head, SegmentLimits, TrailIdentity, TrailSigner, TrailWriter, WriteError};
use crate::checkpoint::Checkpoint;
use crate::line::MAX_LINE;
use crate::note::Note;
use crate::segments::{self, SegmentReader};
use crate::verify::{Outcome, Report, VerifyOptions, verify};
use sandtrace_event::{
    AuditEvent, BreakReason, Count, Digest, Payload, PriorTrail, SegmentCause, SessionStart,
    Timestamp, TrailStart,
};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Longest checkpoint file that is read.
const MAX_CHECKPOINT: u64 = 64 * 1024;
/// Longest torn line that is set aside at once; a line is never longer.
const TORN_BUFFER: usize = 64 * 1024;

/// A trail that is there already.
pub enum Existing {
    /// Writing can go on. Nothing was changed yet.
    Resumable(Box<Resumed>),
    /// Writing cannot go on in these files; a new trail may refer to them.
    Broken(PriorTrail),
}

/// A trail to go on with.
pub struct Resumed {
    store: FileStore,
    path: PathBuf,
    segments: Vec<PathBuf>,
    /// Files that were begun but hold no whole record.
    fragments: Vec<PathBuf>,
    /// Why the last file ended, where it did.
    ended: Option<SegmentCause>,
    report: Report,
    start: TrailStart,
    signed_size: u64,
}

impl Existing {
    /// Looks at the trail whose first file is `path`, and locks it.
    ///
    /// # Errors
    /// Another process writes to it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        let failed = |doing| {
            move |source| WriteError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let mut segments = segments::existing(path).map_err(failed("looking at"))?;
        let fragments = split_fragments(&mut segments).map_err(failed("reading"))?;
        let last = segments.last().map_or(path, PathBuf::as_path);
        let store = FileStore::open(path, last)?;
        let reader = SegmentReader::open(&segments).map_err(failed("opening"))?;
        let options = VerifyOptions {
            live: true,
            ..VerifyOptions::default()
        };
        let report = verify(reader, &options).map_err(failed("reading"))?;
        let ended = segment_end(last, report.partial_bytes).map_err(failed("reading"))?;
        let signed_size = signed_size(path).map_err(failed("reading the checkpoint of"))?;
        let broken = |reason, detail| {
            Self::Broken(PriorTrail {
                detail,
                path: path.display().to_string(),
                reason,
                record_hash: report.last.map(|mark| mark.record_hash),
                size: Count(report.records),
            })
        };
        let start = match (&report.outcome, &report.start) {
            (Outcome::Intact { sealed: false }, Some(start)) if report.end.is_none() => {
                start.clone()
            }
            (Outcome::Intact { .. }, _) => {
                let detail = "it has its trail_end".to_owned();
                return Ok(broken(BreakReason::Sealed, detail));
            }
            (Outcome::Tampered(fault) | Outcome::Malformed(fault), _) => {
                return Ok(broken(BreakReason::Damaged, fault.to_string()));
            }
            (Outcome::Incomplete(_) | Outcome::Empty, _) => {
                let detail = "it has no whole record".to_owned();
                return Ok(broken(BreakReason::Damaged, detail));
            }
        };
        if report.records < signed_size {
            let detail = format!(
                "it has {} records where a signed checkpoint speaks of {signed_size}",
                report.records
            );
            return Ok(broken(BreakReason::Rollback, detail));
        }
        Ok(Self::Resumable(Box::new(Resumed {
            store,
            path: path.to_owned(),
            segments,
            fragments,
            ended,
            report,
            start,
            signed_size,
        })))
    }
}

impl Resumed {
    /// What the trail began with.
    #[must_use]
    pub fn trail_start(&self) -> &TrailStart {
        &self.start
    }

    /// Whose trail it is; `None` where its nonce cannot be read.
    #[must_use]
    pub fn identity(&self) -> Option<TrailIdentity> {
        let identity = self.report.identity.as_ref()?;
        Some(TrailIdentity {
            agent_id: identity.agent_id.as_str().into(),
            sandbox_id: identity.sandbox_id.as_str().into(),
            trace_id: identity.trace_id.as_str().into(),
            nonce: u64::from_str_radix(&self.start.nonce, 16).ok()?,
        })
    }

    /// Sets torn bytes aside and gives the writer, and the record that it is
    /// to append next; the caller fills in its `capture` and policy. `at` and
    /// `now_us` are the moment, as for [`TrailWriter::upkeep`].
    ///
    /// # Errors
    /// The files cannot be changed.
    pub fn resume(
        self,
        identity: TrailIdentity,
        signer: Option<TrailSigner>,
        limits: SegmentLimits,
        (at, now_us): (Timestamp, u64),
    ) -> Result<(TrailWriter, SessionStart), WriteError> {
        let last = self.segments.last().unwrap_or(&self.path);
        let failed = |source| WriteError::Io {
            doing: "setting aside the torn end of",
            path: last.clone(),
            source,
        };
        let torn = self.set_aside(last).map_err(failed)?;
        let bytes = fs::metadata(last).map_err(failed)?.len();
        let mut session = self.session_start(torn);
        let mut writer = TrailWriter::over(Box::new(self.store), &self.path, identity, signer)
            .with_segments(limits);
        let progress = Progress {
            head: self.report.last.map(|mark| Head {
                seq: mark.seq,
                record_hash: mark.record_hash,
            }),
            counts: self.report.counts,
            tree: self.report.tree,
        };
        writer.origin = self.start.origin;
        writer.segment = Segment {
            number: u64::try_from(self.segments.len()).unwrap_or(u64::MAX),
            bytes,
            opened_us: None,
        };
        writer.durable = progress.clone();
        writer.appended = progress;
        if let Some(cause) = self.ended {
            writer.open_next(cause, at, now_us)?;
        }
        if let Some(head) = writer.head() {
            session.prior_hash = head.record_hash;
            session.prior_size = Count(head.seq);
        }
        Ok((writer, session))
    }

    /// Moves what is no whole record to the trail's file of torn lines, and
    /// gives its length and digest.
    fn set_aside(&self, last: &Path) -> io::Result<Option<(u64, Digest)>> {
        let mut hasher = Sha256::new();
        let mut bytes = move_end(last, &self.path, self.report.partial_bytes, &mut hasher)?;
        for fragment in &self.fragments {
            let length = fs::metadata(fragment)?.len();
            bytes += move_end(fragment, &self.path, length, &mut hasher)?;
            fs::remove_file(fragment)?;
        }
        sync_directory_of(&self.path)?;
        Ok((bytes > 0).then(|| (bytes, Digest(hasher.finalize().into()))))
    }

    fn session_start(&self, torn: Option<(u64, Digest)>) -> SessionStart {
        let size = self.report.records;
        SessionStart {
            boot_id: None,
            capture: Vec::new(),
            clean: torn.is_none() && self.signed_size >= size.saturating_sub(1),
            key: None,
            policy_digest: None,
            prior_hash: self
                .report
                .last
                .map_or(Digest([0; 32]), |mark| mark.record_hash),
            prior_size: Count(size),
            signed_size: Count(self.signed_size),
            tool_version: String::new(),
            torn_bytes: Count(torn.map_or(0, |(bytes, _)| bytes)),
            torn_digest: torn.map(|(_, digest)| digest),
        }
    }
}

/// Moves the last `bytes` of a file to the end of the trail's file of torn
/// lines.
fn move_end(from: &Path, first: &Path, bytes: u64, hasher: &mut Sha256) -> io::Result<u64> {
    if bytes == 0 {
        return Ok(0);
    }
    let mut file = OpenOptions::new().read(true).write(true).open(from)?;
    let keep = file.metadata()?.len().saturating_sub(bytes);
    file.seek(io::SeekFrom::Start(keep))?;
    let mut aside = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(segments::torn_path(first))?;
    let mut buffer = vec![0; TORN_BUFFER];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        hasher.update(chunk);
        aside.write_all(chunk)?;
    }
    aside.sync_all()?;
    file.set_len(keep)?;
    file.sync_all()?;
    Ok(bytes)
}

/// Takes the files at the end that hold no whole record: a crash came while
/// the first one was written to them.
fn split_fragments(segments: &mut Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let mut fragments = Vec::new();
    while let [_, .., last] = segments.as_slice() {
        let bound = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let mut line = Vec::new();
        BufReader::new(File::open(last)?.take(bound)).read_until(b'\n', &mut line)?;
        if line.len() == MAX_LINE || line.ends_with(b"\n") {
            break;
        }
        fragments.extend(segments.pop());
    }
    Ok(fragments)
}

/// Why this file of a trail ended, if its last whole record says that it did.
fn segment_end(path: &Path, partial_bytes: u64) -> io::Result<Option<SegmentCause>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len().saturating_sub(partial_bytes);
    let bound = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 2;
    let begin = end.saturating_sub(bound);
    file.seek(io::SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file.take(end - begin).read_to_end(&mut tail)?;
    let tail = tail.strip_suffix(b"\n").unwrap_or(&tail);
    let line = tail.rsplit(|byte| *byte == b'\n').next().unwrap_or(tail);
    let event: Option<AuditEvent> = serde_json::from_slice(line).ok();
    Ok(event.and_then(|event| match event.payload {
        Payload::SegmentEnd(end) => Some(end.cause),
        _ => None,
    }))
}

/// How many records the newest checkpoint beside the trail speaks of. Whoever
/// can write there can also remove it: this catches a copy that was put back,
/// not an attacker with the host's rights, against whom witnesses help.
fn signed_size(path: &Path) -> io::Result<u64> {
    let mut text = Vec::new();
    match File::open(segments::checkpoint_path(path)) {
        Ok(file) => file.take(MAX_CHECKPOINT).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let note = Note::parse(&text).ok();
    let checkpoint = note.and_then(|note| note.text().parse::<Checkpoint>().ok());
    Ok(checkpoint.map_or(0, |checkpoint| checkpoint.size()))
}
