//! Directions of frames in a capture that does not state them.

use crate::frame::Frame;
use crate::key::Addresses;
use crate::packet::{Direction, Packet, mac_at};
use crate::view::Protocol;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Tells which way each frame of a capture file went.
///
/// With the sandbox's addresses: a frame from one of them was sent by the
/// sandbox, ARP among them by its sender, and so was one from a MAC that such a
/// frame had, whatever address it claims; all others were delivered to it.
/// While no such MAC is known, a frame from no address is the sandbox's.
///
/// Without: of two addresses, the sandbox is the one that sends the first frame
/// between them, except that a SYN-ACK answers a SYN that was not captured.
/// Frames that are not IP count as sent.
#[derive(Debug)]
pub struct Orientation {
    sandbox: Vec<IpAddr>,
    macs: Vec<[u8; 6]>,
    /// Which end of each pair of addresses is the sandbox, the older and the newer
    /// half: what is in neither was last seen long ago.
    older: HashMap<Pair, End>,
    newer: HashMap<Pair, End>,
    /// The latest, which most often is that of the next frame too.
    latest: Option<(Pair, End)>,
}

/// Two addresses, the lower first; with ports only where both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    addresses: Addresses,
    ports: (u16, u16),
}

/// One of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Lower,
    Higher,
}

impl End {
    const fn other(self) -> Self {
        match self {
            Self::Lower => Self::Higher,
            Self::Higher => Self::Lower,
        }
    }
}

impl Pair {
    /// Those of a frame, and which of them sends it.
    fn of(frame: &Frame<'_>) -> (Self, End) {
        let addresses = frame.key.addresses;
        let (from, to) = (addresses.first(), addresses.second());
        let ports = if from == to { frame.key.ports } else { (0, 0) };
        if (from, ports.0) <= (to, ports.1) {
            return (Self { addresses, ports }, End::Lower);
        }
        let pair = Self {
            addresses: addresses.swapped(),
            ports: (ports.1, ports.0),
        };
        (pair, End::Higher)
    }
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addresses.hash_wide(state);
        state.write_u32(u32::from(self.ports.0) << 16 | u32::from(self.ports.1));
    }
}

/// The address that a frame claims to come from; of ARP its sender's.
fn source(frame: &Frame<'_>) -> Option<IpAddr> {
    if frame.key.protocol != Protocol::Arp {
        return frame.key.addresses.first();
    }
    // Ethernet and IPv4: six bytes of hardware address, four of network address.
    let arp = frame.payload.strip_prefix(&[0, 1, 8, 0, 6, 4])?;
    let sender: &[u8; 4] = arp.get(8..)?.first_chunk()?;
    Some(IpAddr::from(*sender))
}

/// Pairs in each half. A flow table holds as many flows.
const HALF: usize = 65_536;
/// MACs of one sandbox that are remembered.
const MAX_MACS: usize = 16;

impl Orientation {
    /// `sandbox`: the sandbox's addresses, or none where they are not known.
    #[must_use]
    pub fn new(sandbox: Vec<IpAddr>) -> Self {
        Self {
            sandbox,
            macs: Vec::new(),
            older: HashMap::new(),
            newer: HashMap::new(),
            latest: None,
        }
    }

    /// Which way a frame went, whatever it says itself of that. All frames of a
    /// capture are to be asked for, in their order.
    pub fn direction(&mut self, packet: &Packet<'_>) -> Direction {
        self.of(&Frame::parse(packet), packet.bytes)
    }

    /// Which way a frame went of which `bytes` were captured.
    pub(crate) fn of(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Direction {
        if self.sandbox.is_empty() {
            self.by_pair(frame)
        } else {
            self.by_address(frame, bytes)
        }
    }

    /// Learns from a frame of the capture, which is asked for later, from which MAC
    /// the sandbox sends.
    pub fn learn(&mut self, packet: &Packet<'_>) {
        self.learn_from(&Frame::parse(packet), packet.bytes);
    }

    /// Answers whether the frame says that it is the sandbox's.
    fn learn_from(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> bool {
        let is_own = source(frame).is_some_and(|ip| self.sandbox.contains(&ip));
        // Zeros stand where a capture has no Ethernet header.
        if is_own
            && let Some(mac) = mac_at(bytes, 6).filter(|mac| *mac != [0; 6])
            && !self.macs.contains(&mac)
            && self.macs.len() < MAX_MACS
        {
            self.macs.push(mac);
        }
        is_own
    }

    fn by_address(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Direction {
        if self.learn_from(frame, bytes) {
            return Direction::FromSandbox;
        }
        let target = frame.key.addresses.second();
        if target.is_some_and(|ip| self.sandbox.contains(&ip)) {
            return Direction::ToSandbox;
        }
        let is_own = |mac: Option<[u8; 6]>| mac.is_some_and(|mac| self.macs.contains(&mac));
        // Who has no address yet asks for one; that it is another one is told by its MAC.
        let has_none = self.macs.is_empty() && source(frame).is_some_and(|ip| ip.is_unspecified());
        if is_own(mac_at(bytes, 6)) || has_none {
            Direction::FromSandbox
        } else {
            Direction::ToSandbox
        }
    }

    fn by_pair(&mut self, frame: &Frame<'_>) -> Direction {
        if frame.key.addresses == Addresses::None {
            return Direction::FromSandbox;
        }
        let (pair, sender) = Pair::of(frame);
        let answers = || {
            let header = frame.tcp;
            header.is_some_and(|header| header.flags.syn() && header.flags.ack())
        };
        let sandbox = match self.known(&pair) {
            Some(sandbox) => sandbox,
            None if answers() => self.remember(pair, sender.other()),
            None => self.remember(pair, sender),
        };
        self.latest = Some((pair, sandbox));
        if sandbox == sender {
            Direction::FromSandbox
        } else {
            Direction::ToSandbox
        }
    }

    /// Which of a pair is the sandbox, where that was told already.
    fn known(&mut self, pair: &Pair) -> Option<End> {
        match self.latest {
            Some((latest, sandbox)) if latest == *pair => Some(sandbox),
            _ => self.newer.get(pair).copied().or_else(|| {
                let sandbox = self.older.remove(pair)?;
                Some(self.remember(*pair, sandbox))
            }),
        }
    }

    fn remember(&mut self, pair: Pair, sandbox: End) -> End {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(pair, sandbox);
        sandbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Moment;
    use Direction::{FromSandbox, ToSandbox};

    const A: [u8; 4] = [10, 0, 0, 2];
    const B: [u8; 4] = [192, 0, 2, 1];
    const C: [u8; 4] = [192, 0, 2, 9];

    /// A frame from `MAC(mac)` with these addresses, ports and TCP flags.
    fn frame(mac: u8, from: [u8; 4], to: [u8; 4], ports: [u16; 2], flags: u8) -> Vec<u8> {
        let mut bytes = vec![0; 6];
        bytes.extend([2, 0, 0, 0, 0, mac, 8, 0]);
        bytes.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        bytes.extend([from, to].concat());
        bytes.extend(ports.map(u16::to_be_bytes).concat());
        bytes.extend([0; 8]);
        bytes.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn packet(bytes: &[u8]) -> Packet<'_> {
        Packet {
            at: Moment::default(),
            direction: FromSandbox,
            bytes,
            wire_len: bytes.len() as u32,
            vlan: None,
        }
    }

    fn direction(orientation: &mut Orientation, bytes: &[u8]) -> Direction {
        orientation.direction(&packet(bytes))
    }

    #[track_caller]
    fn check(sandbox: &[[u8; 4]], frames: &[(Vec<u8>, Direction)]) {
        let addresses = sandbox.iter().map(|ip| IpAddr::from(*ip)).collect();
        let mut orientation = Orientation::new(addresses);
        for (at, (bytes, expected)) in frames.iter().enumerate() {
            let direction = direction(&mut orientation, bytes);
            assert_eq!(direction, *expected, "frame {at}");
        }
    }

    #[test]
    fn who_speaks_first_is_the_sandbox() {
        check(
            &[],
            &[
                (frame(1, A, B, [40000, 80], 0x02), FromSandbox),
                (frame(2, B, A, [80, 40000], 0x12), ToSandbox),
                (frame(2, B, A, [50000, 22], 0x02), ToSandbox),
                (frame(2, B, C, [443, 40001], 0x12), ToSandbox),
                (frame(1, C, B, [40001, 443], 0x10), FromSandbox),
                (vec![0; 60], FromSandbox),
            ],
        );
    }

    #[test]
    fn the_sandbox_is_known_by_its_addresses_and_its_macs() {
        check(
            &[A],
            &[
                (frame(2, B, A, [50000, 22], 0x02), ToSandbox),
                (frame(1, A, B, [22, 50000], 0x12), FromSandbox),
                (frame(1, C, B, [1, 2], 0x02), FromSandbox),
                (frame(2, B, C, [2, 1], 0x12), ToSandbox),
                (frame(3, B, C, [3, 4], 0x12), ToSandbox),
            ],
        );
    }

    /// An ARP frame from `MAC(mac)` whose sender has this address.
    fn arp(mac: u8, sender: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        bytes.extend([2, 0, 0, 0, 0, mac]);
        bytes.extend([&sender[..], &[0; 10]].concat());
        bytes
    }

    #[test]
    fn before_it_has_an_address_the_sandbox_is_known_by_what_it_asks_for() {
        const NONE: [u8; 4] = [0; 4];
        const ALL: [u8; 4] = [255; 4];
        check(
            &[A],
            &[
                (frame(1, NONE, ALL, [68, 67], 0), FromSandbox),
                (frame(2, B, ALL, [67, 68], 0), ToSandbox),
                (arp(2, B), ToSandbox),
                (arp(1, A), FromSandbox),
                (arp(1, NONE), FromSandbox),
                (frame(3, NONE, ALL, [68, 67], 0), ToSandbox),
                (frame(1, C, B, [1, 2], 0x02), FromSandbox),
            ],
        );
    }

    #[test]
    fn a_mac_that_is_learned_later_in_the_capture_is_known_from_its_begin() {
        let mut orientation = Orientation::new(vec![A.into()]);
        let spoofed = frame(1, C, B, [1, 2], 0x02);
        assert_eq!(direction(&mut orientation, &spoofed), ToSandbox);
        let own = frame(1, A, B, [1, 2], 0x02);
        orientation.learn(&packet(&own));
        assert_eq!(direction(&mut orientation, &spoofed), FromSandbox);
    }

    #[test]
    fn memory_is_bounded() {
        let mut orientation = Orientation::new(Vec::new());
        for number in 0..3 * HALF as u32 {
            let bytes = frame(1, number.to_be_bytes(), B, [1, 2], 0x02);
            direction(&mut orientation, &bytes);
        }
        assert!(orientation.newer.len() <= HALF && orientation.older.len() <= HALF);
    }
}
