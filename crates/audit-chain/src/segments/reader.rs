//! The files of a trail, read as one.

use crate::line::MAX_LINE;
use sandtrace_event::{AuditEvent, Payload, SegmentCause, SegmentStart};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Take};
use std::path::PathBuf;

/// Reads the files of a trail one after the other.
///
/// Where a file begins because the one before could not be made durable, the
/// lines of that one which were never acknowledged are left out: they are in
/// the new one again.
pub struct SegmentReader {
    parts: VecDeque<Take<File>>,
    sizes: Vec<u64>,
}

impl SegmentReader {
    /// Opens all files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let mut parts = VecDeque::new();
        let mut sizes = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            let file = File::open(path)?;
            let next = paths.get(index + 1).map(File::open).transpose()?;
            let restart = next.map(first_record).transpose()?.flatten();
            let length = match restart {
                Some(start) if start.cause == SegmentCause::SyncFailed => {
                    length_of_records(File::open(path)?, start.size.0)?
                }
                // Growing files are read as far as they are then.
                _ => u64::MAX,
            };
            sizes.push(length.min(file.metadata()?.len()));
            parts.push_back(file.take(length));
        }
        Ok(Self { parts, sizes })
    }

    /// Bytes of each file that belong to the trail.
    #[must_use]
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }
}

impl Read for SegmentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(part) = self.parts.front_mut() {
            let count = part.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.parts.pop_front();
        }
        Ok(0)
    }
}

/// What the file begins with, if that is a `segment_start`.
fn first_record(file: File) -> io::Result<Option<SegmentStart>> {
    let mut line = Vec::new();
    let bound = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    BufReader::new(file.take(bound)).read_until(b'\n', &mut line)?;
    let event: Option<AuditEvent> = serde_json::from_slice(&line).ok();
    Ok(event.and_then(|event| match event.payload {
        Payload::SegmentStart(start) => Some(start),
        _ => None,
    }))
}

/// Bytes up to the first line whose `seq` is greater than `last`, or that
/// cannot be read.
fn length_of_records(file: File, last: u64) -> io::Result<u64> {
    let mut lines = crate::TrailReader::new(file);
    let mut length = 0;
    while let Ok(Some(event)) = lines.next_event() {
        if event.seq.0 > last {
            break;
        }
        length = lines.byte_offset();
    }
    Ok(length)
}
