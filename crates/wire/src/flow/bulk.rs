//! Frames that a capture only counted.

use crate::findings::Findings;
use crate::flow::carried::{Carried, Segments};
use crate::flow::table::{FlowSink, FlowTable};
use crate::frame::{Frame, TcpFlags, TcpHeader, TcpOptions};
use crate::key::{Addresses, FrameKey};
use crate::packet::{Direction, Moment};
use crate::view::Protocol;
use std::net::IpAddr;

/// What a capture counted of one direction of one TCP or UDP flow without
/// looking into the frames. They began no call and answered none: whatever
/// does, or says more than its length, is handed in as a packet.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// The latest of the frames.
    pub at: Moment,
    /// The latest of those with payload.
    pub payload_at: Moment,
    /// Which way they went.
    pub direction: Direction,
    /// Of TCP; UDP has none.
    pub tcp: Option<BulkTcp>,
    /// The sandbox's address and port.
    pub sandbox: (IpAddr, u16),
    /// The other end's.
    pub peer: (IpAddr, u16),
    /// VLAN identifier that the kernel took out.
    pub vlan: Option<u16>,
    /// How many frames.
    pub frames: u64,
    /// Packets that they are on a wire, where offloads cut them.
    pub segments: u64,
    /// Their bytes as the interface counted them.
    pub wire_bytes: u64,
    /// Their payload bytes.
    pub payload: u64,
}

/// Where a connection stands after frames that were only counted.
#[derive(Clone, Copy, Debug)]
pub struct BulkTcp {
    /// Sequence number after the last payload byte.
    pub next: u32,
    /// Highest acknowledgement.
    pub ack: u32,
}

/// Sequence numbers are compared the nearer way round, so that a step must be
/// well below half of them.
const STEP: u64 = 1 << 30;

impl FlowTable {
    /// Counts frames that the capture only counted, and reports what they make due.
    pub fn bulk(&mut self, bulk: &Bulk, sink: &mut dyn FlowSink) {
        let Bulk { at, direction, .. } = *bulk;
        self.totals.count(direction, bulk.frames, bulk.wire_bytes);
        let Some(key) = key(bulk) else { return };
        let (mut frames, mut wire_bytes, mut payload) =
            (bulk.frames, bulk.wire_bytes, bulk.payload);
        let mut segments = bulk.segments;
        loop {
            let step = payload.min(STEP);
            let tcp = bulk.tcp.map(|tcp| TcpHeader {
                seq: back_from(tcp.next, payload),
                ack: tcp.ack,
                flags: TcpFlags::ACK,
                options: TcpOptions::default(),
            });
            let frame = Frame {
                key,
                payload_len: u32::try_from(step).unwrap_or(u32::MAX),
                payload: &[],
                tcp,
                icmp_type: None,
                fragment: None,
                findings: Findings::default(),
            };
            let carried = Carried {
                at,
                since: at,
                direction,
                frames,
                wire_bytes,
                segments: Segments::Known(segments),
                within: 0,
                tunnel: None,
                depth: 0,
                bulk: Some(bulk.payload_at),
            };
            self.datagram(&frame, carried, sink);
            payload -= step;
            (frames, wire_bytes, segments) = (0, 0, 0);
            if payload == 0 {
                return;
            }
        }
    }
}

/// The key in the frames' own order.
fn key(bulk: &Bulk) -> Option<FrameKey> {
    let (from, to) = match bulk.direction {
        Direction::FromSandbox => (bulk.sandbox, bulk.peer),
        Direction::ToSandbox => (bulk.peer, bulk.sandbox),
    };
    let addresses = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Addresses::V4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => Addresses::V6(from, to),
        _ => return None,
    };
    Some(FrameKey {
        protocol: match bulk.tcp {
            Some(_) => Protocol::Tcp,
            None => Protocol::Udp,
        },
        addresses,
        ports: (from.1, to.1),
        vlans: (bulk.vlan.filter(|id| *id != 0), None),
        later_fragment: false,
    })
}

/// The sequence number `payload` bytes before `next`.
fn back_from(next: u32, payload: u64) -> u32 {
    let low = u32::try_from(payload & u64::from(u32::MAX)).unwrap_or_default();
    next.wrapping_sub(low)
}
