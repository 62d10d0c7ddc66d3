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
    failed: Option<Failed>,
}

/// Files cannot be written at the moment.
#[derive(Debug)]
struct Failed {
    error: io::Error,
    /// Frames that were not kept because of that and are not told, and since when.
    unkept: u64,
    since: WallTime,
    /// It was told.
    told: bool,
    /// When to try again.
    retry_us: u64,
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
/// Between two tries of what failed: a disk that is full is so for a while.
const RETRY_US: u64 = 10_000_000;

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
        };
        evidence.open = Some(evidence.next_file()?);
        Ok(evidence)
    }

    /// Keeps one frame.
    pub(super) fn keep(&mut self, frame: &EvidenceFrame<'_>) {
        if self.failed.is_none()
            && let Err(error) = self.try_keep(frame)
        {
            self.fail(error, WallTime(frame.wall_ns));
        }
        if let Some(failed) = &mut self.failed {
            failed.unkept += 1;
        }
    }

    /// Has the file hold all that was kept, so that little is lost with this process.
    /// Tells that files cannot be written, and tries again after a while.
    pub(super) fn tick(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        let flushed = self.open.as_mut().map(|open| open.writer.flush());
        if let Some(Err(error)) = flushed {
            self.fail(error, at.wall);
        }
        let Some(failed) = &mut self.failed else {
            return;
        };
        if !failed.told {
            failed.retry_us = at.mono_us.saturating_add(RETRY_US);
            self.tell(at, observer);
        } else if failed.retry_us <= at.mono_us {
            failed.retry_us = at.mono_us.saturating_add(RETRY_US);
            if let Ok(open) = self.try_again() {
                self.open = Some(open);
                self.tell(at, observer);
                self.failed = None;
            }
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
        self.tell(at, observer);
    }

    /// What a file without a digest holds proves nothing: its frames are not kept.
    fn fail(&mut self, error: io::Error, at: WallTime) {
        let lost = self.open.take().filter(|open| open.frames > 0);
        self.failed = Some(Failed {
            error,
            unkept: lost.as_ref().map_or(0, |open| open.frames),
            since: lost.map_or(at, |open| open.first),
            told: false,
            retry_us: 0,
        });
    }

    /// Says what was not kept since it was told before.
    fn tell(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        let Some(failed) = &mut self.failed else {
            return;
        };
        if failed.told && failed.unkept == 0 {
            return;
        }
        let gap = CaptureGap {
            cause: GapCause::EvidenceFailed,
            count: Count(failed.unkept),
            detail: format!("evidence files could not be written: {}", failed.error),
            first_at: failed.since,
            last_at: at.wall,
            layer: Layer::Network,
            source: self.interface.clone(),
            unit: GapUnit::Packets,
        };
        (failed.told, failed.unkept, failed.since) = (true, 0, at.wall);
        observer.observe(Observation {
            at,
            payload: gap.into(),
            tier: self.tier,
        });
    }

    fn try_keep(&mut self, frame: &EvidenceFrame<'_>) -> io::Result<()> {
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

    /// The next file, if the disk takes its first bytes. No file is left where it does not.
    fn try_again(&mut self) -> io::Result<Open> {
        let mut open = self.next_file()?;
        if let Err(error) = open.writer.flush() {
            // One that cannot be removed is empty.
            let _empty = std::fs::remove_file(self.config.directory.join(&open.name));
            self.number -= 1;
            return Err(error);
        }
        Ok(open)
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
        let first = if open.frames == 0 {
            at.wall
        } else {
            open.first
        };
        match open.close(&self.interface, at.wall, dropped) {
            Ok(file) => {
                observer.observe(Observation {
                    at,
                    payload: file.into(),
                    tier: self.tier,
                });
            }
            Err((error, frames)) => {
                self.fail(error, first);
                if let Some(failed) = &mut self.failed {
                    failed.unkept += frames;
                }
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

#[cfg(test)]
mod tests {
    use super::super::file::FrameReader;
    use super::*;
    use sandtrace_event::{Limits, Payload};
    use std::fs;

    #[derive(Default)]
    struct Told(Vec<Payload>);

    impl Observer for Told {
        fn observe(&mut self, observation: Observation) -> Limits {
            self.0.push(observation.payload);
            Limits::default()
        }
    }

    impl Told {
        /// How many frames each gap has since the last look.
        fn gaps(&mut self) -> Vec<u64> {
            let gap = |payload| match payload {
                Payload::CaptureGap(gap) => Some(gap.count.0),
                _ => None,
            };
            self.0.drain(..).filter_map(gap).collect()
        }
    }

    fn begin(directory: &std::path::Path) -> Evidence {
        let config = EvidenceConfig {
            directory: directory.to_owned(),
            prefix: "box".to_owned(),
            max_bytes: 1,
        };
        Evidence::begin(config, "tap0", EvidenceTier::Hypervisor).unwrap()
    }

    fn keep(evidence: &mut Evidence, frames: u64) {
        for wall_ns in 1..=frames {
            evidence.keep(&EvidenceFrame {
                wall_ns,
                direction: None,
                bytes: &[7; 60],
                wire_len: 60,
                vlan: None,
            });
        }
    }

    fn second(at: u64) -> Timestamp {
        Timestamp {
            mono_us: at * 1_000_000,
            wall: WallTime(at * 1_000_000_000),
        }
    }

    #[test]
    fn a_file_that_is_never_closed_holds_all_but_the_last_second() {
        let directory = tempfile::tempdir().unwrap();
        let mut evidence = begin(directory.path());
        keep(&mut evidence, 50);
        evidence.tick(second(1), &mut Told::default());
        let file = fs::read(directory.path().join("box-tap0-000001.pcapng")).unwrap();
        let mut frames = FrameReader::new(&file[..]).unwrap();
        while frames.next().unwrap().is_some() {}
        assert_eq!(frames.count(), 50);
    }

    #[test]
    fn what_cannot_be_written_is_told_at_once_and_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("evidence");
        fs::create_dir(&directory).unwrap();
        let (mut evidence, mut told) = (begin(&directory), Told::default());
        keep(&mut evidence, 2);
        evidence.rotate(second(1), 0, &mut told);
        evidence.tick(second(1), &mut told);
        assert!(told.gaps().is_empty());
        fs::remove_dir_all(&directory).unwrap();
        keep(&mut evidence, 3);
        evidence.tick(second(2), &mut told);
        assert_eq!(told.gaps(), [3]);
        keep(&mut evidence, 4);
        fs::create_dir(&directory).unwrap();
        evidence.tick(second(3), &mut told);
        assert!(told.gaps().is_empty(), "neither told nor tried each second");
        evidence.tick(second(12), &mut told);
        assert_eq!(told.gaps(), [4]);
        keep(&mut evidence, 5);
        evidence.finish(second(13), 0, &mut told);
        let [Payload::EvidenceFile(file)] = &told.0[..] else {
            panic!("{:?}", told.0);
        };
        assert_eq!(file.frames.0, 5);
        assert!(fs::exists(directory.join(&file.file)).unwrap());
    }
}
