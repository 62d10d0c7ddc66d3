//! DNS over TCP (RFC 7766): messages with their length before them.

use super::Message;
use crate::reassembly::Assembler;
use std::ops::Range;

/// Both directions of one connection, read up to a bound.
#[derive(Debug)]
pub(crate) struct Streams {
    client: Stream,
    server: Stream,
}

#[derive(Debug)]
struct Stream {
    bytes: Assembler,
    /// How far messages were taken out.
    taken: usize,
}

const LENGTH: usize = 2;
/// A question with nothing else has at most so many bytes: header, name, type
/// and class, and an OPT record with some options.
const MAX_QUESTION: usize = 1024;
/// Header, a name of one letter in one label, type and class.
const MIN_QUESTION: usize = 12 + 3 + 4;

/// Whether a client's stream to any port begins with a whole question of DNS;
/// `None` while it is too short to tell.
pub(crate) fn starts_with_question(stream: &[u8]) -> Option<bool> {
    let Some((length, message)) = stream.split_first_chunk::<LENGTH>() else {
        return (stream
            .first()
            .is_some_and(|high| usize::from(*high) * 256 > MAX_QUESTION))
        .then_some(false);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let fits = (MIN_QUESTION..=MAX_QUESTION).contains(&length);
    // Recursion desired and perhaps checking disabled; one question, no answers.
    let header: [fn(u8) -> bool; 6] = [
        |byte| byte == 1,
        |byte| byte & !0x30 == 0,
        |byte| byte == 0,
        |byte| byte == 1,
        |byte| byte == 0,
        |byte| byte == 0,
    ];
    let after_id = message.get(2..).unwrap_or_default();
    if !fits || after_id.iter().zip(header).any(|(byte, fits)| !fits(*byte)) {
        return Some(false);
    }
    message.get(..length).map(Message::is_plain_question)
}

impl Streams {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            client: Stream::new(limit),
            server: Stream::new(limit),
        }
    }

    /// Takes in a segment of `len` bytes of which `bytes` were captured.
    pub(crate) fn insert(&mut self, by_client: bool, offset: u64, bytes: &[u8], len: u32) {
        self.side(by_client).bytes.insert(offset, bytes, len);
    }

    /// The next whole message of a side.
    pub(crate) fn next(&mut self, by_client: bool) -> Option<Vec<u8>> {
        self.side(by_client).next()
    }

    /// Whether the client sent something that is no whole message, or that was
    /// not read: one of the bounds or a gap was before it.
    pub(crate) fn has_remainder(&self) -> bool {
        let Stream { bytes, taken } = &self.client;
        *taken < bytes.data().len() || bytes.is_partial()
    }

    /// Whether a part was sent again with other bytes.
    pub(crate) const fn is_inconsistent(&self) -> bool {
        self.client.bytes.is_inconsistent() || self.server.bytes.is_inconsistent()
    }

    /// Bytes of memory in use.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.client.bytes.footprint() + self.server.bytes.footprint()
    }

    const fn side(&mut self, by_client: bool) -> &mut Stream {
        if by_client {
            &mut self.client
        } else {
            &mut self.server
        }
    }
}

impl Stream {
    const fn new(limit: usize) -> Self {
        Self {
            bytes: Assembler::new(limit),
            taken: 0,
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let data = self.bytes.data();
        let length = data.get(self.taken..)?.first_chunk::<LENGTH>()?;
        let start = self.taken + LENGTH;
        let range: Range<usize> = start..start + usize::from(u16::from_be_bytes(*length));
        let message = data.get(range.clone())?.to_vec();
        self.taken = range.end;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_and_in_order() {
        let mut streams = Streams::new(100);
        streams.insert(true, 4, b"\0\x01z", 3);
        assert_eq!(streams.next(true), None);
        streams.insert(true, 0, b"\0\x02ab", 4);
        assert_eq!(streams.next(true).as_deref(), Some(&b"ab"[..]));
        assert_eq!(streams.next(true).as_deref(), Some(&b"z"[..]));
        assert_eq!(streams.next(true), None);
        assert!(!streams.has_remainder());
        streams.insert(true, 7, b"GET / HTTP", 10);
        assert_eq!(streams.next(true), None);
        assert!(streams.has_remainder());
    }

    /// Nothing comes out of any of these, and each of them may be a question.
    #[test]
    fn what_is_not_read_is_not_forgotten() {
        let piece = |at: u16| (u64::from(at), &b"\0\0"[..]);
        let more_than_are_held: Vec<_> = (1..70).rev().map(piece).collect();
        let behind_a_gap = [piece(2)];
        let behind_the_bound = [piece(0), piece(100)];
        for pieces in [&more_than_are_held[..], &behind_a_gap, &behind_the_bound] {
            let mut streams = Streams::new(100);
            for (offset, bytes) in pieces {
                streams.insert(true, *offset, bytes, 2);
                while streams.next(true).is_some() {}
            }
            assert!(streams.has_remainder(), "{pieces:?}");
        }
        let mut streams = Streams::new(100);
        for (offset, bytes) in [piece(2), piece(0), piece(2)] {
            streams.insert(true, offset, bytes, 2);
        }
        while streams.next(true).is_some() {}
        assert!(!streams.has_remainder());
    }
}
