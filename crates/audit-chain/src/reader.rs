//! Walks over the lines of a trail that may still grow.

use crate::envelope::Envelope;
use crate::line::MAX_LINE;
use sandtrace_event::{AuditEvent, Digest, EventType};
use std::io::{self, Read};

/// One whole line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it begins.
    pub byte_offset: u64,
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes without the line feed.
    pub bytes: &'a [u8],
}

impl Line<'_> {
    /// The record that the line spells. This proves nothing: only
    /// [`crate::verify()`] checks hashes.
    ///
    /// # Errors
    /// The line is no record.
    pub fn event(&self) -> Result<AuditEvent, ReadError> {
        serde_json::from_slice(self.bytes).map_err(|source| ReadError::NotAnEvent {
            line: self.number,
            byte_offset: self.byte_offset,
            source,
        })
    }

    /// Its `seq` and `record_hash` as it states them, where its form is that
    /// of a record. This proves nothing either.
    #[must_use]
    pub fn stated(&self) -> Option<(u64, Digest)> {
        let envelope = Envelope::parse(self.bytes).ok()?;
        let hash = std::str::from_utf8(envelope.record_hash).ok()?;
        Some((envelope.seq, hash.parse().ok()?))
    }
}

impl Line<'_> {
    /// Its `seq` and type as it states them, like [`Self::stated`].
    #[must_use]
    pub(crate) fn stated_type(&self) -> Option<(u64, EventType)> {
        let envelope = Envelope::parse(self.bytes).ok()?;
        Some((envelope.seq, envelope.event_type))
    }
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The input failed.
    #[error("reading the trail at byte {byte_offset}")]
    Io {
        /// How much was read.
        byte_offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The line is longer than [`MAX_LINE`]; nothing after it can be read.
    #[error("line {line}, byte {byte_offset}: longer than {MAX_LINE} bytes")]
    TooLong {
        /// Number of the line, from 1.
        line: u64,
        /// Where it begins.
        byte_offset: u64,
    },
    /// The line is no record; the lines after it can still be read.
    #[error("line {line}, byte {byte_offset}: not a record")]
    NotAnEvent {
        /// Number of the line, from 1.
        line: u64,
        /// Where it begins.
        byte_offset: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
}

/// Bytes per read.
const CHUNK: usize = 64 * 1024;

/// Gives the lines of a trail one by one, and more of them once it has grown.
pub struct TrailReader<R> {
    input: R,
    /// Bytes that were read but not yet given, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    byte_offset: u64,
    lines: u64,
}

impl<R: Read> TrailReader<R> {
    /// Reads from where the input stands, which counts as byte 0 of the trail.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            start: 0,
            byte_offset: 0,
            lines: 0,
        }
    }

    /// The next whole line. `None` at the end of the input, also inside of a
    /// partial line: ask again once the trail has grown.
    ///
    /// # Errors
    /// The input fails, or the line is longer than [`MAX_LINE`].
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        let mut searched = 0;
        let feed = loop {
            let pending = self.buffer.get(self.start..).unwrap_or_default();
            let fresh = pending.get(searched..).unwrap_or_default();
            if let Some(place) = memchr::memchr(b'\n', fresh) {
                break searched + place;
            }
            searched = pending.len();
            if searched > MAX_LINE {
                return Err(self.too_long());
            }
            if !self.read_more()? {
                return Ok(None);
            }
        };
        if feed > MAX_LINE {
            return Err(self.too_long());
        }
        let byte_offset = self.byte_offset;
        let begin = self.start;
        self.start += feed + 1;
        self.byte_offset += length(feed) + 1;
        self.lines += 1;
        Ok(Some(Line {
            byte_offset,
            number: self.lines,
            bytes: self.buffer.get(begin..begin + feed).unwrap_or_default(),
        }))
    }

    /// The next record, as [`Self::next_line`] and [`Line::event`].
    ///
    /// # Errors
    /// As these two.
    pub fn next_event(&mut self) -> Result<Option<AuditEvent>, ReadError> {
        self.next_line()?.map(|line| line.event()).transpose()
    }

    /// Where the next line begins.
    pub fn byte_offset(&self) -> u64 {
        self.byte_offset
    }

    /// Bytes of the partial line at the end of what was read so far.
    pub fn partial_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn read_more(&mut self) -> Result<bool, ReadError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let used = self.buffer.len();
        self.buffer.resize(used + CHUNK, 0);
        let room = self.buffer.get_mut(used..).unwrap_or_default();
        let read = read_retrying(&mut self.input, room);
        self.buffer.truncate(used + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(count) => Ok(count > 0),
            Err(source) => Err(ReadError::Io {
                byte_offset: self.byte_offset + length(used),
                source,
            }),
        }
    }

    fn too_long(&self) -> ReadError {
        ReadError::TooLong {
            line: self.lines + 1,
            byte_offset: self.byte_offset,
        }
    }
}

fn read_retrying(input: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(reader: &mut TrailReader<impl Read>) -> Vec<(u64, u64, Vec<u8>)> {
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push((line.number, line.byte_offset, line.bytes.to_vec()));
        }
        lines
    }

    #[test]
    fn a_growing_file_is_read_line_by_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut reader = TrailReader::new(file.reopen().unwrap());
        assert_eq!(lines_of(&mut reader), []);
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(lines_of(&mut reader), [(1, 0, b"one".to_vec())]);
        assert_eq!((reader.byte_offset(), reader.partial_bytes()), (4, 2));
        file.write_all(b"o").unwrap();
        assert_eq!(lines_of(&mut reader), []);
        file.write_all(b"\n\nthree\n").unwrap();
        let expected = [
            (2, 4, b"two".to_vec()),
            (3, 8, vec![]),
            (4, 9, b"three".to_vec()),
        ];
        assert_eq!(lines_of(&mut reader), expected);
        assert_eq!(reader.partial_bytes(), 0);
    }

    #[test]
    fn lines_of_any_length_up_to_the_bound_are_read() {
        let line = |length: usize| [vec![b'x'; length], vec![b'\n']].concat();
        let input = [line(MAX_LINE), line(0), line(MAX_LINE), line(1)].concat();
        let mut reader = TrailReader::new(&input[..]);
        let lengths: Vec<_> = lines_of(&mut reader).iter().map(|l| l.2.len()).collect();
        assert_eq!(lengths, [MAX_LINE, 0, MAX_LINE, 1]);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_in_bounded_memory() {
        for input in [vec![b'x'; MAX_LINE + 1], vec![b'x'; 3 * MAX_LINE]] {
            let mut reader = TrailReader::new(input.as_slice().chain(io::repeat(b'x')));
            let error = reader.next_line().unwrap_err();
            assert!(matches!(
                error,
                ReadError::TooLong {
                    line: 1,
                    byte_offset: 0
                }
            ));
            assert!(reader.buffer.len() <= 3 * CHUNK);
        }
    }

    #[test]
    fn a_line_that_is_no_record_does_not_end_the_reading() {
        let mut reader = TrailReader::new(&b"{}\nnext\n"[..]);
        let error = reader.next_event().unwrap_err();
        assert!(matches!(error, ReadError::NotAnEvent { line: 1, .. }));
        assert_eq!(reader.next_line().unwrap().unwrap().bytes, b"next");
    }
}
