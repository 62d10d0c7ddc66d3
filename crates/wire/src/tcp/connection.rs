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
    pub(crate) handshake: Handshake,
    /// The client called bytes urgent.
    pub(crate) is_urgent: bool,
    /// The smaller of the largest segments that the ends stated.
    segment: Option<u16>,
}

/// What is known of the numbers that the server goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// No answer to the client's SYN was seen; perhaps no SYN either.
    #[default]
    Unanswered,
    /// The same of more than one SYN.
    Contested,
    /// The server goes by the client's latest SYN.
    Answered,
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

    /// Whether a segment of the client begins another connection than this one,
    /// of which more is known than a SYN.
    pub(crate) fn is_restarted_by(&self, header: TcpHeader) -> bool {
        let is_attempt = self.from_client.is_empty() && self.ends.is_unanswered();
        header.flags.opens() && !is_attempt && self.from_client.is_restarted_by(header.seq)
    }

    /// Notes which handshake the server answers, where more than one was begun,
    /// and bytes that receivers may leave out.
    fn note_oddities(&mut self, by_client: bool, header: TcpHeader) {
        let TcpHeader {
            seq, ack, flags, ..
        } = header;
        if !by_client {
            if flags.syn() && flags.ack() && self.from_client.is_answered_by(ack) {
                self.handshake = Handshake::Answered;
            }
        } else if flags.opens() {
            if self.from_client.is_restarted_by(seq) {
                self.handshake = Handshake::Contested;
            }
        } else {
            self.is_urgent |= flags.urg() && !flags.rst();
        }
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
        self.note_oddities(by_client, header);
        self.ends.segment(by_client, flags, len);
        let (own, other) = if by_client {
            (&mut self.from_client, &mut self.from_server)
        } else {
            (&mut self.from_server, &mut self.from_client)
        };
        if flags.rst() {
            // Its numbers need not be true, and its payload is no part of the stream.
            return Seen {
                new: len,
                ..Seen::default()
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
