//! One frame: headers down to the transport.
//!
//! All lengths come from the headers and from the length on the wire, never
//! from how much of the frame was captured.

use crate::findings::{Finding, Findings};
use crate::key::{Addresses, FrameKey, SCTP};
use crate::packet::Packet;
use crate::reader::Reader;
use crate::view::Protocol;
use etherparse::{Ipv6ExtensionSlice, LaxIpSlice, LaxIpv4Slice, LaxIpv6Slice, ether_type};

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
    pub(crate) findings: Findings,
}

/// The fields of a TCP header that accounting needs (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpHeader {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: TcpFlags,
}

/// Control bits of a TCP header.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpFlags(u8);

impl TcpFlags {
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
}

const ETHERNET_HEADER: u32 = 14;
const VLAN_TAG: u32 = 4;
/// Tags followed inside one frame; a deeper stack is its own EtherType class.
const MAX_TAGS: usize = 4;
/// Below this, an EtherType is the length of an IEEE 802.3 frame.
const FIRST_ETHERTYPE: u16 = 0x0600;

impl<'a> Frame<'a> {
    /// Parses what can be parsed; the rest is a class of its own, never nothing.
    pub(crate) fn parse(packet: &Packet<'a>) -> Self {
        let link = Link::parse(packet);
        let mut frame = Frame {
            key: FrameKey {
                protocol: Protocol::Ethernet(link.ether_type),
                addresses: Addresses::None,
                ports: (0, 0),
                vlans: link.vlans,
                later_fragment: false,
            },
            payload_len: link.wire_rest,
            payload: link.rest,
            tcp: None,
            icmp_type: None,
            findings: Findings::default(),
        };
        if link.truncated {
            frame.findings.insert(Finding::TruncatedHeader);
        }
        match link.ether_type {
            ARP => frame.key.protocol = Protocol::Arp,
            IPV4 | IPV6 => frame.internet(&link),
            _ => {}
        }
        frame
    }

    fn internet(&mut self, link: &Link<'a>) {
        let ip = match LaxIpSlice::from_slice(link.rest) {
            Ok((LaxIpSlice::Ipv4(ip), stop)) if link.ether_type == IPV4 => {
                Internet::v4(&ip, link.wire_rest, stop.is_some())
            }
            Ok((LaxIpSlice::Ipv6(ip), stop)) if link.ether_type == IPV6 => {
                Internet::v6(&ip, link.wire_rest, stop.is_some())
            }
            _ => {
                self.findings.insert(Finding::TruncatedHeader);
                return;
            }
        };
        self.findings = self.findings.union(ip.findings);
        self.key.addresses = ip.addresses;
        self.key.later_fragment = ip.later_fragment;
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
        if ip.later_fragment || ip.broken {
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
        });
        if offset < 5 {
            return None;
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

const ARP: u16 = ether_type::ARP.0;
const IPV4: u16 = ether_type::IPV4.0;
const IPV6: u16 = ether_type::IPV6.0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP_HEADER: u32 = 8;
const SCTP_HEADER: u32 = 12;
const ICMP_HEADER: u32 = 8;

/// The Ethernet header with its tags.
struct Link<'a> {
    /// 0 where there is none.
    ether_type: u16,
    vlans: (Option<u16>, Option<u16>),
    rest: &'a [u8],
    /// Bytes on the wire after the link headers.
    wire_rest: u32,
    truncated: bool,
}

impl<'a> Link<'a> {
    fn parse(packet: &Packet<'a>) -> Self {
        let mut link = Link {
            ether_type: 0,
            vlans: (packet.vlan.filter(|id| *id != 0), None),
            rest: packet.bytes,
            wire_rest: packet.wire_len,
            truncated: false,
        };
        link.truncated = link.headers(packet).is_none();
        link
    }

    /// `None` where a header is not whole; what was read stays.
    fn headers(&mut self, packet: &Packet<'a>) -> Option<()> {
        let mut reader = Reader::new(packet.bytes);
        reader.take(12)?;
        let mut ether_type = reader.u16()?;
        let mut wire_rest = packet.wire_len.checked_sub(ETHERNET_HEADER)?;
        for _ in 0..MAX_TAGS {
            if !is_tag(ether_type) {
                break;
            }
            self.set(ether_type, wire_rest, reader);
            let tag = reader.u16()? & 0x0fff;
            ether_type = reader.u16()?;
            wire_rest = wire_rest.checked_sub(VLAN_TAG)?;
            // A tag with identifier 0 bears a priority only (IEEE 802.1Q).
            if tag != 0 {
                match self.vlans {
                    (None, _) => self.vlans.0 = Some(tag),
                    (_, None) => self.vlans.1 = Some(tag),
                    _ => {}
                }
            }
        }
        self.set(ether_type, wire_rest, reader);
        Some(())
    }

    fn set(&mut self, ether_type: u16, wire_rest: u32, reader: Reader<'a>) {
        self.ether_type = if ether_type < FIRST_ETHERTYPE {
            0
        } else {
            ether_type
        };
        self.wire_rest = wire_rest;
        self.rest = reader.rest();
    }
}

fn is_tag(ether_type: u16) -> bool {
    [
        ether_type::VLAN_TAGGED_FRAME.0,
        ether_type::PROVIDER_BRIDGING.0,
        ether_type::VLAN_DOUBLE_TAGGED_FRAME.0,
    ]
    .contains(&ether_type)
}

/// An IP header with its extension headers.
struct Internet<'a> {
    addresses: Addresses,
    protocol: u8,
    /// Bytes on the wire after the IP headers.
    payload_len: u32,
    payload: &'a [u8],
    later_fragment: bool,
    /// The chain of headers could not be followed to its end.
    broken: bool,
    findings: Findings,
}

impl<'a> Internet<'a> {
    fn v4(ip: &LaxIpv4Slice<'a>, wire_rest: u32, broken: bool) -> Self {
        let header = ip.header();
        let header_len = u32::from(header.ihl()) * 4;
        let auth_len = ip.extensions().auth.map_or(0, |auth| auth.slice().len());
        let mut this = Self {
            addresses: Addresses::V4(header.source_addr(), header.destination_addr()),
            protocol: ip.payload().ip_number.0,
            payload_len: 0,
            payload: ip.payload().payload,
            later_fragment: header.fragments_offset().value() != 0,
            broken,
            findings: Findings::default(),
        };
        this.measure(
            u32::from(header.total_len()),
            header_len,
            auth_len,
            wire_rest,
        );
        this.note(ip.is_payload_fragmented());
        this
    }

    fn v6(ip: &LaxIpv6Slice<'a>, wire_rest: u32, broken: bool) -> Self {
        let header = ip.header();
        let fragmented = ip.is_payload_fragmented();
        let later_fragment = fragmented
            && ip.extensions().clone().into_iter().any(|ext| {
                matches!(ext, Ipv6ExtensionSlice::Fragment(f) if f.fragment_offset().value() != 0)
            });
        let mut this = Self {
            addresses: Addresses::V6(header.source_addr(), header.destination_addr()),
            protocol: ip.payload().ip_number.0,
            payload_len: 0,
            payload: ip.payload().payload,
            later_fragment,
            broken,
            findings: Findings::default(),
        };
        // Length 0 is a jumbogram (RFC 2675) or an offload frame above 64 KiB.
        let total = match header.payload_length() {
            0 => 0,
            len => u32::from(len) + IPV6_HEADER,
        };
        this.measure(total, IPV6_HEADER, ip.extensions().slice().len(), wire_rest);
        this.note(fragmented);
        this
    }

    /// Sets how many payload bytes are on the wire. `total` is the datagram's
    /// length as its header states it, 0 where an offload engine is to fill it in.
    fn measure(&mut self, total: u32, header: u32, extensions: usize, wire_rest: u32) {
        let headers = header.saturating_add(u32::try_from(extensions).unwrap_or(u32::MAX));
        let total = if total == 0 {
            wire_rest
        } else if total < headers || total > wire_rest {
            self.findings.insert(Finding::TruncatedHeader);
            wire_rest
        } else {
            if wire_rest > MAX_PADDED && wire_rest - total > MAX_TRAILER {
                self.findings.insert(Finding::TrailingBytes);
            }
            total
        };
        self.payload_len = total.saturating_sub(headers);
    }

    fn note(&mut self, fragmented: bool) {
        if fragmented {
            self.findings.insert(Finding::Fragmented);
        }
        if self.broken {
            self.findings.insert(Finding::TruncatedHeader);
        }
    }
}

const IPV6_HEADER: u32 = 40;
/// Frames are padded to 60 bytes, tagged ones to 64; nothing longer is padded.
const MAX_PADDED: u32 = 64;
/// A frame check sequence and a little alignment are harmless.
const MAX_TRAILER: u32 = 8;

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
