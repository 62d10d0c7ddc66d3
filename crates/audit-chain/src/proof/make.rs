//! Makes proofs of the records of a trail.

use super::{Extra, Proof};
use crate::checkpoint::Checkpoint;
use crate::merkle::{Inclusions, leaf_hash};
use crate::note::Note;
use crate::segments::SegmentReader;
use crate::{Line, ReadError, TrailReader};
use sandtrace_event::{EventType, Payload, TrailKey};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

/// Most records that are proved at once: about a kilobyte of memory each.
pub const MAX_RECORDS: usize = 100_000;

/// Checkpoints that a later cosignature may be of.
const RECENT: usize = 1024;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The files cannot be opened.
    #[error("opening the trail")]
    Io(#[from] io::Error),
    /// A line cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A line is no record, or not the one that belongs there.
    #[error("line {0} is not the record that belongs there; `sandtrace verify` says more")]
    Malformed(u64),
    /// A note in the trail cannot be read.
    #[error("the note in line {0} cannot be read; `sandtrace verify` says more")]
    Note(u64),
    /// No checkpoint is in the trail.
    #[error("nothing in this trail is signed: there is nothing to prove against")]
    Unsigned,
    /// The last checkpoint does not reach that far.
    #[error("record {seq} is not signed yet: the last checkpoint is over {size} records")]
    NotCovered {
        /// The record.
        seq: u64,
        /// Records that are signed.
        size: u64,
    },
    /// More than [`MAX_RECORDS`].
    #[error("more than {MAX_RECORDS} records at once: name fewer, or hand over the trail itself")]
    TooMany,
    /// The records are not those that were signed.
    #[error("the trail is not what its last checkpoint says; `sandtrace verify` says more")]
    Root,
}

/// What was found out about a trail in one reading.
pub struct Chosen {
    /// Indices of the records, in order.
    indices: Vec<u64>,
    anchor: Anchor,
    /// Records in the trail.
    pub records: u64,
}

/// A checkpoint, and whose word it is.
#[derive(Clone)]
struct Anchor {
    note: Note,
    checkpoint: Checkpoint,
    host: String,
    certificates: Vec<String>,
}

impl Chosen {
    /// Reads the trail and keeps the records that `wanted` says yes to.
    ///
    /// # Errors
    /// The trail cannot be read, or has nothing to prove them by.
    pub fn read(
        files: &[PathBuf],
        mut wanted: impl FnMut(u64, &Line<'_>) -> Result<bool, ReadError>,
    ) -> Result<Self, MakeError> {
        let mut anchors = Anchors::default();
        let mut indices = Vec::new();
        let mut records = 0;
        let mut lines = TrailReader::new(SegmentReader::open(files)?);
        while let Some(line) = lines.next_line()? {
            let stated = line.stated_type();
            let (seq, event_type) = stated.ok_or(MakeError::Malformed(line.number))?;
            if seq != records + 1 {
                return Err(MakeError::Malformed(line.number));
            }
            records = seq;
            anchors.note(&line, event_type)?;
            if wanted(seq, &line)? {
                if indices.len() == MAX_RECORDS {
                    return Err(MakeError::TooMany);
                }
                indices.push(seq - 1);
            }
        }
        let last = indices.last().copied().unwrap_or_default();
        Ok(Self {
            anchor: anchors.choose(last)?,
            indices,
            records,
        })
    }

    /// How many records were chosen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Reads the trail twice more and gives the proofs in order.
    ///
    /// # Errors
    /// The trail cannot be read, is not what was signed, or `give` fails.
    pub fn prove<E: From<MakeError>>(
        &self,
        files: &[PathBuf],
        mut give: impl FnMut(Proof) -> Result<(), E>,
    ) -> Result<(), E> {
        let inclusions = self.inclusions(files)?;
        let open = || SegmentReader::open(files).map_err(MakeError::from);
        let mut lines = TrailReader::new(open()?);
        let mut index = 0;
        let mut left = self.indices.iter().copied().peekable();
        while left.peek().is_some()
            && let Some(line) = lines.next_line().map_err(MakeError::from)?
        {
            if left.next_if_eq(&index).is_some() {
                let record = String::from_utf8(line.bytes.to_vec());
                let record = record.map_err(|_| MakeError::Malformed(line.number))?;
                give(Proof {
                    extra: Extra {
                        certificates: self.anchor.certificates.clone(),
                        host: self.anchor.host.clone(),
                        record,
                    },
                    index,
                    inclusion: inclusions.proof(index).ok_or(MakeError::Root)?,
                    checkpoint: self.anchor.note.clone(),
                })?;
            }
            index += 1;
        }
        Ok(())
    }

    fn inclusions(&self, files: &[PathBuf]) -> Result<Inclusions, MakeError> {
        let size = self.anchor.checkpoint.size();
        let mut inclusions = Inclusions::new(size, self.indices.iter().copied());
        let mut lines = TrailReader::new(SegmentReader::open(files)?);
        for _ in 0..size {
            let line = lines.next_line()?.ok_or(MakeError::Root)?;
            let (_, hash) = line.stated().ok_or(MakeError::Malformed(line.number))?;
            inclusions.push_leaf(leaf_hash(&hash.0));
        }
        if inclusions.root() == Some(self.anchor.checkpoint.root()) {
            Ok(inclusions)
        } else {
            Err(MakeError::Root)
        }
    }
}

/// The checkpoints of a trail, as far as they may be of use.
#[derive(Default)]
struct Anchors {
    host: String,
    certificates: Vec<String>,
    recent: VecDeque<Anchor>,
    /// The newest that a witness has signed.
    cosigned: Option<Anchor>,
}

impl Anchors {
    fn note(&mut self, line: &Line<'_>, event_type: EventType) -> Result<(), MakeError> {
        let is_of_use = matches!(
            event_type,
            EventType::TrailStart
                | EventType::SessionStart
                | EventType::KeyRotate
                | EventType::Checkpoint
                | EventType::Cosignature
        );
        if !is_of_use {
            return Ok(());
        }
        match line.event()?.payload {
            Payload::TrailStart(start) => self.begin(start.key),
            Payload::SessionStart(start) => self.begin(start.key),
            Payload::KeyRotate(rotate) => self.certificates.push(rotate.certificate),
            Payload::Checkpoint(checkpoint) => {
                let (note, checkpoint) = read(&checkpoint.note, line.number)?;
                if self.recent.len() == RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back(Anchor {
                    note,
                    checkpoint,
                    host: self.host.clone(),
                    certificates: self.certificates.clone(),
                });
            }
            Payload::Cosignature(cosignature) => {
                let (note, _) = read(&cosignature.note, line.number)?;
                let mut recent = self.recent.iter_mut().rev();
                if let Some(anchor) = recent.find(|other| other.note.text() == note.text()) {
                    for line in note.signatures() {
                        anchor.note.attach(line.clone());
                    }
                    self.cosigned = Some(anchor.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, key: Option<TrailKey>) {
        self.certificates.clear();
        if let Some(key) = key {
            self.host = key.host;
            self.certificates.push(key.certificate);
        }
    }

    /// The newest, or one that is cosigned if it reaches as far.
    fn choose(self, last: u64) -> Result<Anchor, MakeError> {
        let reaches = |anchor: &Anchor| last < anchor.checkpoint.size();
        let newest = self.recent.back().cloned().ok_or(MakeError::Unsigned)?;
        if let Some(cosigned) = self.cosigned.filter(reaches) {
            return Ok(cosigned);
        }
        if reaches(&newest) {
            return Ok(newest);
        }
        Err(MakeError::NotCovered {
            seq: last + 1,
            size: newest.checkpoint.size(),
        })
    }
}

fn read(note: &str, line: u64) -> Result<(Note, Checkpoint), MakeError> {
    let note = Note::parse(note.as_bytes()).map_err(|_| MakeError::Note(line))?;
    let checkpoint = note.text().parse().map_err(|_| MakeError::Note(line))?;
    Ok((note, checkpoint))
}
