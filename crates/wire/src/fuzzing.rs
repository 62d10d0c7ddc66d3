//! What the fuzz targets call: every reader of hostile bytes, on any bytes.
//!
//! Each must end without a panic; what more must hold is asserted here.

#![expect(clippy::panic, reason = "a fuzz target tells by a panic what it found")]

use crate::dns::{Message, Streams, Tunnelling};
use crate::flow::{Bulk, BulkTcp, FlowSink, FlowTable, WireCount};
use crate::frame::Frame;
use crate::http::{Progress, Requests};
use crate::quic::QuicSniff;
use crate::reader::Reader;
use crate::reassembly::Assembler;
use crate::tls::{ClientWalk, is_alert, server_hello};
use crate::tunnel::{Inner, MAX_DEPTH};
use crate::view::{Bounds, FlowView, Phase};
use crate::{Direction, DnsTransaction, FlowConfig, Moment, Orientation, Packet};
use std::net::IpAddr;

/// One frame, and all that it carries.
pub fn frame(bytes: &[u8]) {
    let wire_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let packet = Packet {
        at: Moment::default(),
        direction: Direction::FromSandbox,
        bytes,
        wire_len,
        vlan: None,
    };
    let mut frame = Frame::parse(&packet);
    if frame.payload.len() > bytes.len() {
        panic!("more payload than bytes");
    }
    for _ in 0..MAX_DEPTH {
        let Some(inner) = Inner::of(&frame) else {
            break;
        };
        let (next, len) = inner.frame(packet.at, packet.direction);
        if len > wire_len || next.payload.len() > frame.payload.len() {
            panic!("a frame in a frame is not larger");
        }
        frame = next;
    }
}

/// One DNS message, alone and in a stream.
pub fn dns(bytes: &[u8]) {
    let _is_question = Message::is_plain_question(bytes);
    if let Some(message) = Message::parse(bytes) {
        let _count = message.addresses().count();
        let _texts = message.answer_texts();
        let _many = Tunnelling::default().ask(&message.question.name, 0);
    }
    let mut streams = Streams::new(4096);
    for (number, part) in bytes.chunks(7).enumerate() {
        let offset = u64::try_from(number * 7).unwrap_or(u64::MAX);
        streams.insert(true, offset, part, 7);
        while streams.next(true).is_some() {}
    }
}

/// A client's and a server's first bytes of TLS. The first byte says how they
/// are cut.
pub fn tls_hello(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else {
        return;
    };
    let server = server_hello(stream).flatten();
    let mut walk = ClientWalk::default();
    let mut handshake = 0;
    for part in stream.chunks(usize::from(*size).max(1)) {
        let _alert = is_alert(part, u32::try_from(part.len()).unwrap_or(u32::MAX));
        handshake += walk.feed(part, server);
    }
    if handshake > u64::try_from(stream.len()).unwrap_or(u64::MAX) {
        panic!("more handshake than bytes");
    }
}

/// A client's datagrams of QUIC, each with its length before it.
pub fn quic(bytes: &[u8]) {
    let mut sniff = QuicSniff::new();
    for datagram in pieces(bytes) {
        sniff.client(datagram);
        if sniff.footprint() > 1 << 20 {
            panic!("QUIC takes too much memory");
        }
    }
}

/// The requests of an HTTP/1 connection, in pieces.
pub fn http(bytes: &[u8]) {
    let mut requests = Requests::new(0);
    for end in (0..=bytes.len()).step_by(5).chain([bytes.len()]) {
        let known = bytes.get(..end).unwrap_or_default();
        let mut before = requests.at();
        while let Progress::Head(_) = requests.next(0, known) {
            if requests.at() <= before {
                panic!("a head has bytes");
            }
            before = requests.at();
        }
    }
    let _head = requests.give_up(0, bytes);
}

/// Segments of a stream at any offsets: memory stays bounded, and what was
/// read once does not change.
pub fn reassembly(bytes: &[u8]) {
    const LIMIT: usize = 2048;
    let mut stream = Assembler::new(LIMIT);
    let mut before: Vec<u8> = Vec::new();
    for piece in pieces(bytes) {
        let Some((offset, data)) = piece.split_first_chunk::<2>() else {
            continue;
        };
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        stream.insert(u64::from(u16::from_le_bytes(*offset) % 4096), data, len);
        if !stream.data().starts_with(&before) {
            panic!("bytes that were read have changed");
        }
        if stream.data().len() > LIMIT || stream.footprint() > 16 * LIMIT {
            panic!("a stream takes too much memory");
        }
        before = stream.data().to_vec();
    }
}

/// Frames through a small table: every one is in exactly one record.
pub fn flow_table(bytes: &[u8]) {
    let mut table = FlowTable::new(FlowConfig {
        max_flows: 8,
        max_dns_pending: 4,
        max_named_addresses: 4,
        open_burst: 6,
        opens_per_second: 1,
        check_macs: true,
        reassembly_bytes_total: 64 * 1024,
        ..FlowConfig::default()
    });
    let mut orientation = Orientation::new(Vec::new());
    let mut sums = Sums::default();
    let mut now = Moment::default();
    for (number, piece) in pieces(bytes).enumerate() {
        let Some(([step, more], frame)) = piece.split_first_chunk::<2>() else {
            continue;
        };
        // From nothing to a quarter of a minute.
        now.mono_us += u64::from(*step).pow(3);
        now.wall_ns = now.mono_us * 1000;
        let wire_len = u32::try_from(frame.len()).unwrap_or(0) + u32::from(*more);
        let direction = match number % 2 {
            0 => Direction::FromSandbox,
            _ => Direction::ToSandbox,
        };
        table.tick(now, &mut sums);
        let packet = Packet {
            at: now,
            direction,
            bytes: frame,
            wire_len,
            vlan: None,
        };
        // As the programs in the kernel tell: to be cut, or only counted.
        match more {
            0xf0.. => table.bulk(&counted(now, direction, frame), &mut sums),
            0xe0.. => table.packet_to_cut(&packet, u32::from(*step), &mut sums),
            0x80.. => table.oriented(&packet, &mut orientation, &mut sums),
            _ => table.packet(&packet, &mut sums),
        }
    }
    table.finish(now, &mut sums);
    let totals = table.totals();
    if sums.sent != totals.sent || sums.received != totals.received {
        panic!("the records do not add up: {sums:?} and {totals:?}");
    }
}

/// Sums of a flow between few ends, whatever the bytes.
fn counted(at: Moment, direction: Direction, bytes: &[u8]) -> Bulk {
    let mut reader = Reader::new(bytes);
    let mut byte = || reader.u8().unwrap_or_default();
    let [ends, kind, frames] = [byte(), byte(), byte()];
    let mut word = || reader.u32().unwrap_or_default();
    let [next, ack, payload, before_us] = [word(), word(), word(), word()];
    let address = |last: u8| match kind & 2 {
        0 => IpAddr::from([10, 0, 0, last]),
        _ => IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
    };
    Bulk {
        at,
        payload_at: Moment {
            mono_us: at.mono_us.saturating_sub(before_us.into()),
            ..at
        },
        direction,
        tcp: (kind & 1 == 0).then_some(BulkTcp { next, ack }),
        sandbox: (address(ends & 3), u16::from(ends & 4)),
        peer: (address(ends >> 4), u16::from(ends & 8)),
        vlan: (kind & 4 != 0).then_some(kind.into()),
        frames: frames.into(),
        segments: u64::from(frames) * 2,
        wire_bytes: u64::from(payload) * 2,
        payload: payload.into(),
    }
}

/// What all records add up to.
#[derive(Debug, Default)]
struct Sums {
    sent: WireCount,
    received: WireCount,
}

impl FlowSink for Sums {
    fn flow(&mut self, phase: Phase, _at: Moment, flow: &FlowView<'_>) -> Bounds {
        if phase == Phase::Close && flow.tunnel.is_none() {
            for (sum, traffic) in [
                (&mut self.sent, flow.sent),
                (&mut self.received, flow.received),
            ] {
                sum.packets += traffic.packets;
                sum.wire_bytes += traffic.wire_bytes;
            }
        }
        Bounds {
            max_bytes_per_call: Some(100),
            max_bytes_total: Some(1000),
        }
    }

    fn dns(&mut self, _at: Moment, _query: &DnsTransaction) {}
}

/// Pieces with their length in two bytes before them; the last may be short.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
        let (piece, after) = after.split_at_checked(len)?;
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
