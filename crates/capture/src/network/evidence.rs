//! Frames as they were, kept in files whose digests are in the trail.

use super::pcapng::{EvidenceFrame, PcapNgWriter};
use crate::Observer;
use sandtrace_event::{
    CaptureGap, Count, Digest, EvidenceFile, EvidenceTier, GapCause, GapUnit, Layer, Observation,
    Timestamp, WallTime,
};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Where evidence files go.
#[derive(Clone, Debug)]
pub struct EvidenceConfig {
    /// Directory, which must exist.
    pub directory: PathBuf,
    /// What the files' names begin with; must set one watch apart from another.
    pub prefix: String,
    /// A file that has more bytes is closed and the next one begun.
    pub max_bytes: u64,
}

/// Keeps frames of one interface in files, one after the other.
#[derive(Debug)]
pub(super) struct Evidence {
    config: EvidenceConfig,
    interface: String,
    tier: EvidenceTier,
    number: u32,
    open: Option<Open>,
    /// Why nothing more is kept.
    failed: Option<io::Error>,
    /// Frames that were not kept because of that, and since when.
    unkept: u64,
    unkept_since: WallTime,
}

/// The file that is being written.
#[derive(Debug)]
struct Open {
    name: String,
    writer: PcapNgWriter<BufWriter<Hashed>>,
    frames: u64,
    first: WallTime,
    last: WallTime,
}

/// Hashes what is written on its way.
#[derive(Debug)]
struct Hashed {
    file: File,
    hasher: Sha256,
}

const BUFFER: usize = 256 * 1024;

impl Evidence {
    /// Begins the first file, so that what is wrong with the directory shows at once.
    pub(super) fn begin(
        config: EvidenceConfig,
        interface: &str,
        tier: EvidenceTier,
    ) -> io::Result<Self> {
        let mut evidence = Self {
            config,
            interface: interface.to_owned(),
            tier,
            number: 0,
            open: None,
            failed: None,
            unkept: 0,
            unkept_since: WallTime(0),
        };
        evidence.open = Some(evidence.next_file()?);
        Ok(evidence)
    }

    /// Keeps one frame.
    pub(super) fn keep(&mut self, frame: &EvidenceFrame<'_>) {
        let at = WallTime(frame.wall_ns);
        if let Err(error) = self.try_keep(frame) {
            self.failed.get_or_insert(error);
        }
        if self.failed.is_some() {
            if self.unkept == 0 {
                self.unkept_since = at;
            }
            self.unkept += 1;
        }
    }

    /// Closes the file if it is full; its record goes to the observer.
    pub(super) fn rotate(&mut self, at: Timestamp, dropped: u64, observer: &mut dyn Observer) {
        let full = self
            .open
            .as_ref()
            .is_some_and(|open| open.writer.written() >= self.config.max_bytes);
        if full {
            self.close(at, dropped, observer);
        }
    }

    /// Closes the last file and says what was not kept.
    pub(super) fn finish(mut self, at: Timestamp, dropped: u64, observer: &mut dyn Observer) {
        self.close(at, dropped, observer);
        if let Some(error) = &self.failed {
            let gap = CaptureGap {
                cause: GapCause::EvidenceFailed,
                count: Count(self.unkept),
                detail: format!("evidence files could not be written: {error}"),
                first_at: self.unkept_since,
                last_at: at.wall,
                layer: Layer::Network,
                source: self.interface.clone(),
                unit: GapUnit::Packets,
            };
            observer.observe(Observation {
                at,
                payload: gap.into(),
                tier: self.tier,
            });
        }
    }

    fn try_keep(&mut self, frame: &EvidenceFrame<'_>) -> io::Result<()> {
        if self.failed.is_some() {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.next_file()?,
        };
        let at = WallTime(frame.wall_ns);
        if open.frames == 0 {
            open.first = at;
        }
        open.last = at;
        open.frames += 1;
        let kept = open.writer.frame(frame);
        if kept.is_err() {
            open.frames -= 1;
        }
        self.open = Some(open);
        kept
    }

    fn next_file(&mut self) -> io::Result<Open> {
        self.number += 1;
        let name = format!(
            "{}-{}-{:06}.pcapng",
            self.config.prefix, self.interface, self.number
        );
        // Frames hold whatever the sandbox sent: nobody else is to read them.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.config.directory.join(&name))?;
        let hashed = Hashed {
            file,
            hasher: Sha256::new(),
        };
        let out = BufWriter::with_capacity(BUFFER, hashed);
        Ok(Open {
            name,
            writer: PcapNgWriter::new(out, &self.interface)?,
            frames: 0,
            first: WallTime(0),
            last: WallTime(0),
        })
    }

    fn close(&mut self, at: Timestamp, dropped: u64, observer: &mut dyn Observer) {
        let Some(open) = self.open.take() else { return };
        match open.close(&self.interface, at.wall, dropped) {
            Ok(file) => {
                observer.observe(Observation {
                    at,
                    payload: file.into(),
                    tier: self.tier,
                });
            }
            Err((error, frames)) => {
                if self.unkept == 0 {
                    self.unkept_since = at.wall;
                }
                // What a file without a digest holds proves nothing.
                self.unkept += frames;
                self.failed.get_or_insert(error);
            }
        }
    }
}

impl Open {
    /// The file's record once all of it is on the disk.
    fn close(
        self,
        interface: &str,
        at: WallTime,
        dropped: u64,
    ) -> Result<EvidenceFile, (io::Error, u64)> {
        let frames = self.frames;
        let (first, last) = if frames == 0 {
            (at, at)
        } else {
            (self.first, self.last)
        };
        let (name, written) = (self.name, self.writer);
        let close = || {
            let hashed = written
                .finish(at.0, dropped)?
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            hashed.file.sync_all()?;
            let bytes = hashed.file.metadata()?.len();
            Ok(EvidenceFile {
                bytes: Count(bytes),
                file: name,
                first_at: first,
                frames: Count(frames),
                interface: Some(interface.to_owned()),
                last_at: last,
                sha256: Digest(hashed.hasher.finalize().into()),
            })
        };
        close().map_err(|error| (error, frames))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
