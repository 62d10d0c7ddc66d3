//! One frame: headers down to the transport.
//!
//! All lengths come from the headers and from the length on the wire, never
//! from how much of the frame was captured.

mod internet;
mod link;

use crate::findings::{Finding, Findings};
use crate::key::{Addresses, FrameKey, SCTP};
use crate::packet::Packet;
use crate::reader::Reader;
use crate::view::Protocol;
pub(crate) use internet::Fragment;
use internet::Internet;
use link::Link;

/// A parsed frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) key: FrameKey,
    /// Transport payload bytes on the wire.
    pub(crate) payload_len: u32,
    /// What was captured of them.
    pub(crate) payload: &'a [u8],
    pub(crate) tcp: Option<TcpHeader>,
    pub(crate) icmp_type: Option<u8>,
    /// Where it is a part of a datagram: which. Its payload is then that part.
    pub(crate) fragment: Option<Fragment>,
    pub(crate) findings: Findings,
}

/// The fields of a TCP header that accounting needs (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpHeader {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: TcpFlags,
    pub(crate) options: TcpOptions,
}

/// What is read of a TCP header's options.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpOptions {
    /// Bytes that they take of a segment.
    pub(crate) length: u8,
    /// Most payload of a segment that the sender takes, options included
    /// (RFC 9293 section 3.7.1); only read of a SYN.
    pub(crate) segment: Option<u16>,
}

/// Control bits of a TCP header.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpFlags(u8);

impl TcpFlags {
    /// An acknowledgement and nothing else.
    pub(crate) const ACK: Self = Self(0x10);

    #[cfg(test)]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(crate) const fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    pub(crate) const fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    pub(crate) const fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    pub(crate) const fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }

    pub(crate) const fn urg(self) -> bool {
        self.0 & 0x20 != 0
    }

    /// The first of a handshake.
    pub(crate) const fn opens(self) -> bool {
        self.syn() && !self.ack()
    }
}

impl<'a> Frame<'a> {
    /// Parses what can be parsed; the rest is a class of its own, never nothing.
    pub(crate) fn parse(packet: &Packet<'a>) -> Self {
        let link = Link::parse(packet);
        let mut frame = Self::network(link.ether_type, link.rest, link.wire_rest, link.vlans);
        if link.truncated {
            frame.findings.insert(Finding::TruncatedHeader);
        }
        frame
    }

    /// Parses what stands after a link header. `wire_len` is its length on the
    /// wire, of which `bytes` were captured.
    pub(crate) fn network(
        ether_type: u16,
        bytes: &'a [u8],
        wire_len: u32,
        vlans: (Option<u16>, Option<u16>),
    ) -> Self {
        let mut frame = Frame {
            key: FrameKey {
                protocol: Protocol::Ethernet(ether_type),
                addresses: Addresses::None,
                ports: (0, 0),
                vlans,
                later_fragment: false,
            },
            payload_len: wire_len,
            payload: bytes,
            tcp: None,
            icmp_type: None,
            fragment: None,
            findings: Findings::default(),
        };
        match ether_type {
            ARP => frame.key.protocol = Protocol::Arp,
            IPV4 | IPV6 => frame.internet(ether_type, bytes, wire_len),
            _ => {}
        }
        frame
    }

    fn internet(&mut self, ether_type: u16, bytes: &'a [u8], wire_len: u32) {
        let ip = match ether_type {
            IPV4 => Internet::v4(bytes, wire_len),
            _ => Internet::v6(bytes, wire_len),
        };
        let Some(ip) = ip else {
            self.findings.insert(Finding::TruncatedHeader);
            return;
        };
        self.findings = self.findings.union(ip.findings);
        self.key.addresses = ip.addresses;
        self.fragment = ip.fragment;
        self.payload_len = ip.payload_len;
        // What the padding of a short frame holds is not payload.
        let captured = usize::try_from(ip.payload_len).unwrap_or(usize::MAX);
        self.payload = ip.payload.get(..captured).unwrap_or(ip.payload);
        self.key.protocol = match ip.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            ICMP => Protocol::Icmp,
            ICMPV6 => Protocol::Icmpv6,
            other => Protocol::Ip(other),
        };
        if ip.fragment.is_some() || ip.broken {
            return;
        }
        let whole = match self.key.protocol {
            Protocol::Tcp => self.transport_tcp(),
            Protocol::Udp => self.transport_ports(UDP_HEADER),
            Protocol::Ip(SCTP) => self.transport_ports(SCTP_HEADER),
            Protocol::Icmp | Protocol::Icmpv6 => self.transport_icmp(),
            _ => Some(()),
        };
        if whole.is_none() {
            self.findings.insert(Finding::TruncatedHeader);
        }
    }

    /// `None` where the header is not whole; what was read stays.
    fn transport_tcp(&mut self) -> Option<()> {
        let mut reader = Reader::new(self.payload);
        self.key.ports = (reader.u16()?, reader.u16()?);
        let (seq, ack) = (reader.u32()?, reader.u32()?);
        let (offset, flags) = (reader.u8()? >> 4, reader.u8()?);
        self.tcp = Some(TcpHeader {
            seq,
            ack,
            flags: TcpFlags(flags),
            options: TcpOptions::default(),
        });
        if offset < 5 {
            return None;
        }
        let length = (offset - 5) * 4;
        reader.take(6);
        let options = reader.up_to(usize::from(length));
        if let Some(tcp) = &mut self.tcp {
            tcp.options = TcpOptions {
                length,
                segment: largest_segment(options).filter(|_| tcp.flags.syn()),
            };
        }
        self.strip(u32::from(offset) * 4)
    }

    fn transport_ports(&mut self, header_len: u32) -> Option<()> {
        let mut reader = Reader::new(self.payload);
        self.key.ports = (reader.u16()?, reader.u16()?);
        self.strip(header_len)
    }

    fn transport_icmp(&mut self) -> Option<()> {
        let mut reader = Reader::new(self.payload);
        let (kind, code) = (reader.u8()?, reader.u8()?);
        self.icmp_type = Some(kind);
        let kind = u16::from(kind);
        let counterpart = icmp_counterpart(self.key.protocol, kind);
        self.key.ports = (kind, counterpart.unwrap_or(u16::from(code)));
        self.strip(ICMP_HEADER)
    }

    /// Takes a header off the payload, on the wire and in what was captured.
    fn strip(&mut self, header: u32) -> Option<()> {
        let captured = usize::try_from(header).ok()?;
        let whole = self.payload_len.checked_sub(header);
        self.payload = self.payload.get(captured..).unwrap_or_default();
        self.payload_len = whole.unwrap_or_default();
        whole.map(|_| ())
    }
}

/// The option that states the largest segment.
fn largest_segment(options: &[u8]) -> Option<u16> {
    let mut reader = Reader::new(options);
    loop {
        match reader.u8()? {
            0 => return None,
            1 => {}
            kind => {
                let length = usize::from(reader.u8()?).checked_sub(2)?;
                let mut value = reader.sub(length)?;
                if kind == 2 {
                    return value.u16();
                }
            }
        }
    }
}

const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP_HEADER: u32 = 8;
const SCTP_HEADER: u32 = 12;
const ICMP_HEADER: u32 = 8;

/// The ICMP or ICMPv6 message type that answers this one or that this one
/// answers, as the Community ID specification lists them.
pub(crate) const fn icmp_counterpart(protocol: Protocol, kind: u16) -> Option<u16> {
    Some(match (protocol, kind) {
        (Protocol::Icmp, 8) => 0,
        (Protocol::Icmp, 0) => 8,
        (Protocol::Icmp, 9) => 10,
        (Protocol::Icmp, 10) => 9,
        (Protocol::Icmp, 13) => 14,
        (Protocol::Icmp, 14) => 13,
        (Protocol::Icmp, 15) => 16,
        (Protocol::Icmp, 16) => 15,
        (Protocol::Icmp, 17) => 18,
        (Protocol::Icmp, 18) => 17,
        (Protocol::Icmpv6, 128) => 129,
        (Protocol::Icmpv6, 129) => 128,
        (Protocol::Icmpv6, 130) => 131,
        (Protocol::Icmpv6, 131) => 130,
        (Protocol::Icmpv6, 133) => 134,
        (Protocol::Icmpv6, 134) => 133,
        (Protocol::Icmpv6, 135) => 136,
        (Protocol::Icmpv6, 136) => 135,
        (Protocol::Icmpv6, 139) => 140,
        (Protocol::Icmpv6, 140) => 139,
        (Protocol::Icmpv6, 144) => 145,
        (Protocol::Icmpv6, 145) => 144,
        _ => return None,
    })
}
