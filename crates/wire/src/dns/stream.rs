//! DNS over TCP (RFC 7766): messages with their length before them.

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

    /// Whether the client sent something that is no whole message.
    pub(crate) fn has_remainder(&self) -> bool {
        self.client.taken < self.client.bytes.data().len()
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
}
