//! Frames inside frames: which tunnels are looked into, and how they are told apart.

use crate::frame::{Frame, IPV4, IPV6};
use crate::key::Addresses;
use crate::packet::{Direction, Moment, Packet};
use crate::reader::Reader;
use crate::view::Protocol;
use std::collections::{HashMap, VecDeque};

/// How one conversation is carried inside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelKind {
    /// IPv4 or IPv6 in IPv4 or IPv6 (RFC 2003, RFC 4213, RFC 2473).
    IpInIp,
    /// GRE (RFC 2784, RFC 2890), also over UDP (RFC 8086) and as ERSPAN.
    Gre,
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GTP version 1, user plane (3GPP TS 29.281).
    GtpU,
    /// Teredo (RFC 4380).
    Teredo,
    /// AYIYA (draft-massar-v6ops-ayiya-02).
    Ayiya,
}

impl TunnelKind {
    /// The word that stands in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IpInIp => "ip_in_ip",
            Self::Gre => "gre",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::GtpU => "gtp_u",
            Self::Teredo => "teredo",
            Self::Ayiya => "ayiya",
        }
    }
}

/// What a flow is carried in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelFacts {
    /// How.
    pub kind: TunnelKind,
    /// The flow that carried its first frame; absent for many.
    pub outer_flow: Option<u64>,
}

/// The frame inside a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner<'a> {
    pub(crate) kind: TunnelKind,
    /// Network identifier, where the protocol has one that is the same both ways.
    network: u32,
    content: Content,
    bytes: &'a [u8],
    wire_len: u32,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Ethernet,
    Network(u16),
}

/// Tunnels within tunnels that are followed.
pub(crate) const MAX_DEPTH: u8 = 4;

impl<'a> Inner<'a> {
    /// The frame that another carries, where it is clear that it does.
    pub(crate) fn of(frame: &Frame<'a>) -> Option<Self> {
        let mut reader = Reader::new(frame.payload);
        let inner = match frame.key.protocol {
            Protocol::Ip(4 | 41) => Self::plain_ip(TunnelKind::IpInIp, frame, reader),
            Protocol::Ip(47) => Self::gre(frame, reader),
            Protocol::Udp => match frame.key.ports {
                (_, 4789) => {
                    let [flags, _, _, next] = reader.array()?;
                    let network = reader.u32()?;
                    (flags & 0x08 != 0 && network & 0xff == 0).then_some(())?;
                    // The generic extension (draft-ietf-nvo3-vxlan-gpe) says what follows.
                    let content = match (flags & 0x04 != 0, next) {
                        (false, _) | (true, 3) => Content::Ethernet,
                        (true, 1) => Content::Network(IPV4),
                        (true, 2) => Content::Network(IPV6),
                        (true, _) => return None,
                    };
                    Self::rest(TunnelKind::Vxlan, network, content, frame, reader)
                }
                (_, 6081) => Self::geneve(frame, reader),
                (2152, _) | (_, 2152) => Self::gtp_u(frame, reader),
                (3544, _) | (_, 3544) => Self::teredo(frame, reader),
                (_, 4754) => Self::gre(frame, reader),
                (5072, _) | (_, 5072) => {
                    let [identity, signature, operation, next] = reader.array()?;
                    (operation & 0x0f == 1 && matches!(next, 4 | 41)).then_some(())?;
                    let identity = 1_usize.checked_shl(u32::from(identity >> 4))?;
                    let signature = usize::from(signature >> 4) * 4;
                    reader.take(4 + identity + signature)?;
                    Self::plain_ip(TunnelKind::Ayiya, frame, reader)
                }
                _ => Self::teredo_peer(frame, reader),
            },
            _ => None,
        }?;
        inner.is_plausible().then_some(inner)
    }

    /// Parses the inner frame.
    pub(crate) fn frame(&self, at: Moment, direction: Direction) -> (Frame<'a>, u32) {
        let frame = match self.content {
            Content::Ethernet => Frame::parse(&Packet {
                at,
                direction,
                bytes: self.bytes,
                wire_len: self.wire_len,
                vlan: None,
            }),
            Content::Network(ether_type) => {
                Frame::network(ether_type, self.bytes, self.wire_len, (None, None))
            }
        };
        (frame, self.wire_len)
    }

    fn rest(
        kind: TunnelKind,
        network: u32,
        content: Content,
        frame: &Frame<'a>,
        reader: Reader<'a>,
    ) -> Option<Self> {
        let bytes = reader.rest();
        let header = u32::try_from(frame.payload.len() - bytes.len()).ok()?;
        Some(Self {
            kind,
            network,
            content,
            bytes,
            wire_len: frame.payload_len.checked_sub(header)?,
        })
    }

    fn plain_ip(kind: TunnelKind, frame: &Frame<'a>, reader: Reader<'a>) -> Option<Self> {
        let content = ip_content(reader.rest())?;
        Self::rest(kind, 0, content, frame, reader)
    }

    fn gre(frame: &Frame<'a>, mut reader: Reader<'a>) -> Option<Self> {
        let (flags, carried) = (reader.u16()?, reader.u16()?);
        let (version, has) = (flags & 7, |bit: u16| flags & bit != 0);
        // Routing (0x4000) was deprecated by RFC 2784; version 1 is PPTP's, of PPP.
        if has(0x4000) || version > 1 {
            return None;
        }
        if has(0x8000) {
            reader.u32()?;
        }
        if has(0x2000) {
            reader.u32()?;
        }
        if has(0x1000) {
            reader.u32()?;
        }
        if version == 1 && has(0x0080) {
            reader.u32()?;
        }
        let content = match (version, carried) {
            (0, IPV4 | IPV6) => Content::Network(carried),
            // Transparent Ethernet bridging (RFC 7637).
            (0, 0x6558) => Content::Ethernet,
            (0, 0x88be) => {
                // ERSPAN: type I has no header, II has 8 bytes and a sequence number.
                if has(0x1000) {
                    reader.take(8)?;
                }
                Content::Ethernet
            }
            (0, 0x22eb) => {
                // ERSPAN type III: 12 bytes, and 8 more where its last bit says so.
                let header = reader.take(12)?;
                if header.last()? & 1 != 0 {
                    reader.take(8)?;
                }
                Content::Ethernet
            }
            // PPP, perhaps with its address and control bytes left out.
            (1, 0x880b) => {
                let mut peek = reader;
                if peek.u16()? == 0xff03 {
                    reader = peek;
                }
                match reader.u8()? {
                    0x21 => Content::Network(IPV4),
                    0x57 => Content::Network(IPV6),
                    0 => match reader.u8()? {
                        0x21 => Content::Network(IPV4),
                        0x57 => Content::Network(IPV6),
                        _ => return None,
                    },
                    _ => return None,
                }
            }
            _ => return None,
        };
        Self::rest(TunnelKind::Gre, 0, content, frame, reader)
    }

    fn geneve(frame: &Frame<'a>, mut reader: Reader<'a>) -> Option<Self> {
        let [first, second] = reader.array()?;
        let carried = reader.u16()?;
        let network = reader.u32()?;
        // Version 0, and the reserved bits as they must be sent.
        (first >> 6 == 0 && second & 0x3f == 0 && network & 0xff == 0).then_some(())?;
        reader.take(usize::from(first & 0x3f) * 4)?;
        let content = match carried {
            0x6558 => Content::Ethernet,
            IPV4 | IPV6 => Content::Network(carried),
            _ => return None,
        };
        Self::rest(TunnelKind::Geneve, network, content, frame, reader)
    }

    fn gtp_u(frame: &Frame<'a>, mut reader: Reader<'a>) -> Option<Self> {
        let [flags, message] = reader.array()?;
        // Version 1, GTP and not GTP', a user's packet.
        (flags >> 4 == 3 && message == 255).then_some(())?;
        let length = reader.u16()?;
        (u32::from(length) + 8 == frame.payload_len).then_some(())?;
        reader.u32()?;
        if flags & 7 != 0 {
            let [_, _, _, mut next] = reader.array()?;
            if flags & 4 == 0 {
                next = 0;
            }
            while next != 0 {
                let words = usize::from(reader.u8()?);
                let body = reader.take((words * 4).checked_sub(1)?)?;
                next = *body.last()?;
            }
        }
        Self::plain_ip(TunnelKind::GtpU, frame, reader)
    }

    fn teredo(frame: &Frame<'a>, mut reader: Reader<'a>) -> Option<Self> {
        // Authentication and origin may stand before the packet, in this order.
        let mut peek = reader;
        if peek.u16() == Some(1) {
            let (id, value) = (peek.u8()?, peek.u8()?);
            peek.take(usize::from(id) + usize::from(value) + 9)?;
            reader = peek;
        }
        let mut peek = reader;
        if peek.u16() == Some(0) {
            peek.take(6)?;
            reader = peek;
        }
        (reader.rest().first()? >> 4 == 6).then_some(())?;
        Self::plain_ip(TunnelKind::Teredo, frame, reader)
    }

    /// Teredo between peers and relays has no port of its own: exactly an IPv6
    /// packet from or to an address of 2001::/32 is one.
    fn teredo_peer(frame: &Frame<'a>, reader: Reader<'a>) -> Option<Self> {
        let mut header = reader;
        (header.u8()? >> 4 == 6).then_some(())?;
        header.take(3)?;
        let length = header.u16()?;
        header.take(2)?;
        let (from, to): ([u8; 16], [u8; 16]) = (header.array()?, header.array()?);
        let is_teredo = |address: [u8; 16]| address.starts_with(&[0x20, 0x01, 0, 0]);
        (u32::from(length) + 40 == frame.payload_len && (is_teredo(from) || is_teredo(to)))
            .then_some(())?;
        Self::plain_ip(TunnelKind::Teredo, frame, reader)
    }

    /// Whether the inner header can be one. Ports are no proof of a protocol.
    fn is_plausible(&self) -> bool {
        match self.content {
            Content::Ethernet => self.wire_len >= 14 && self.bytes.len() >= 14,
            Content::Network(ether_type) => {
                let mut reader = Reader::new(self.bytes);
                let (Some(first), Some(_), Some(length)) = (reader.u8(), reader.u8(), reader.u16())
                else {
                    return false;
                };
                match ether_type {
                    IPV4 => {
                        first >> 4 == 4
                            && first & 0x0f >= 5
                            && (20..=self.wire_len).contains(&u32::from(length))
                    }
                    _ => {
                        let payload = reader.u16().unwrap_or(u16::MAX);
                        first >> 4 == 6 && u32::from(payload) + 40 <= self.wire_len
                    }
                }
            }
        }
    }
}

fn ip_content(bytes: &[u8]) -> Option<Content> {
    match bytes.first()? >> 4 {
        4 => Some(Content::Network(IPV4)),
        6 => Some(Content::Network(IPV6)),
        _ => None,
    }
}

/// Numbers of the tunnels that are in use: what a flow's key says it is within.
///
/// A tunnel is told by the addresses of its ends, its kind and its network
/// identifier, never by ports: those of UDP tunnels differ by direction.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    numbers: HashMap<TunnelKey, u32>,
    order: VecDeque<TunnelKey>,
    latest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TunnelKey {
    kind: TunnelKind,
    sandbox_and_peer: Addresses,
    network: u32,
    within: u32,
}

/// Tunnels told apart; the oldest number is given up for another.
const MAX_TUNNELS: usize = 1024;

impl Tunnels {
    /// The number of the tunnel that carries this frame, from 1.
    pub(crate) fn number(&mut self, inner: &Inner<'_>, ends: Addresses, within: u32) -> u32 {
        // A Teredo packet's answer may come from another relay.
        let ends = match inner.kind {
            TunnelKind::Teredo => Addresses::None,
            _ => ends,
        };
        let key = TunnelKey {
            kind: inner.kind,
            sandbox_and_peer: ends,
            network: inner.network,
            within,
        };
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        if self.order.len() >= MAX_TUNNELS
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        self.latest = self.latest.wrapping_add(1).max(1);
        self.numbers.insert(key, self.latest);
        self.order.push_back(key);
        self.latest
    }
}
