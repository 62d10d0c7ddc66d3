//! Both directions of one connection.

use super::{Ends, History, Seen, Sequence};
use crate::frame::{TcpHeader, TcpOptions};

/// State and sequence accounting of a connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) ends: Ends,
    pub(crate) history: History,
    pub(crate) from_client: Sequence,
    pub(crate) from_server: Sequence,
    /// The smaller of the largest segments that the ends stated.
    segment: Option<u16>,
}

/// What fits a frame of 1,500 bytes after headers without options.
const USUAL_SEGMENT: u16 = 1460;
/// Nobody makes smaller ones, whatever the other end states (Linux:
/// `TCP_MIN_SND_MSS`).
const LEAST_SEGMENT: u16 = 48;

impl Connection {
    /// Takes in one segment with `len` bytes of payload.
    pub(crate) fn segment(&mut self, by_client: bool, header: TcpHeader, len: u32) -> Seen {
        let seen = self.take(by_client, header, len);
        self.history
            .segment(by_client, header.flags, len, seen.resent);
        seen
    }

    /// Most payload that a segment with such options has by what both ends stated.
    pub(crate) fn segment_size(&self, options: TcpOptions) -> u32 {
        let stated = self.segment.unwrap_or(USUAL_SEGMENT);
        let size = stated
            .max(LEAST_SEGMENT)
            .saturating_sub(options.length.into());
        u32::from(size.max(1))
    }

    fn take(&mut self, by_client: bool, header: TcpHeader, len: u32) -> Seen {
        let TcpHeader {
            seq,
            ack,
            flags,
            options,
        } = header;
        if let Some(stated) = options.segment {
            self.segment = Some(self.segment.map_or(stated, |known| known.min(stated)));
        }
        self.ends.segment(by_client, flags, len);
        let (own, other) = if by_client {
            (&mut self.from_client, &mut self.from_server)
        } else {
            (&mut self.from_server, &mut self.from_client)
        };
        if flags.rst() {
            // Its numbers need not be true, and its payload is no part of the stream.
            return Seen {
                offset: None,
                new: len,
                resent: 0,
            };
        }
        let data = if flags.syn() {
            own.syn(seq);
            seq.wrapping_add(1)
        } else {
            seq
        };
        let seen = own.payload(data, len);
        if flags.fin() {
            own.fin(data, len);
        }
        if flags.ack() {
            other.ack(ack);
        }
        seen
    }
}
