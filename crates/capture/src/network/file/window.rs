//! The part of a file that is at hand.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

/// Bytes read at once: few enough for the processor's cache. Of larger buffers, which
/// no cache holds, the kernel's copying took 30 % of a replay's time, and takes 6 % so.
const AT_ONCE: usize = 64 * 1024;

/// The next bytes of a file. It grows by what is read, never by what a length claims.
pub(super) struct Window<R> {
    source: R,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Window<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            bytes: vec![0; 2 * AT_ONCE],
            start: 0,
            end: 0,
        }
    }

    /// Whether so many bytes are left, which are then at hand. What was taken before
    /// is not any more.
    pub(super) fn holds(&mut self, len: usize) -> io::Result<bool> {
        while self.end - self.start < len {
            if self.fill()? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing of the file is at hand.
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next bytes, as far as they are at hand.
    pub(super) fn front(&self, len: usize) -> &[u8] {
        let end = self.start.saturating_add(len).min(self.end);
        self.bytes.get(self.start..end).unwrap_or_default()
    }

    /// Goes on by so many bytes that are at hand, and answers where they are.
    pub(super) fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.start;
        self.start = start.saturating_add(len).min(self.end);
        start..self.start
    }

    /// Bytes that were taken.
    pub(super) fn get(&self, at: Range<usize>) -> &[u8] {
        self.bytes.get(at).unwrap_or_default()
    }

    /// Goes on by so many bytes; whether the file has them.
    pub(super) fn skip(&mut self, mut len: usize) -> io::Result<bool> {
        loop {
            len -= self.take(len).len();
            if len == 0 {
                return Ok(true);
            }
            if self.fill()? == 0 {
                return Ok(false);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.bytes.len() - self.end < AT_ONCE {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let needed = self.end + AT_ONCE;
            if self.bytes.len() < needed {
                self.bytes.resize(needed, 0);
            }
        }
        let room = self.bytes.get_mut(self.end..self.end + AT_ONCE);
        let room = room.unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
