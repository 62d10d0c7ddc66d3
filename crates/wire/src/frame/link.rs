//! What stands before the network header: Ethernet, tags, labels, sessions.

use super::{IPV4, IPV6};
use crate::packet::Packet;
use crate::reader::Reader;

const ETHERNET_HEADER: u32 = 14;
const VLAN_TAG: u32 = 4;
/// Tags of IEEE 802.1Q and 802.1ad, and what stood for the latter before.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Headers followed inside one frame; a deeper stack is its own EtherType class.
const MAX_HEADERS: usize = 8;
/// Below this, an EtherType is the length of an IEEE 802.3 frame.
const FIRST_ETHERTYPE: u16 = 0x0600;
/// VN-Tag (Cisco): six bytes, the last two an EtherType.
const VN_TAG: u16 = 0x8926;
/// MPLS, unicast and multicast (RFC 5332).
const MPLS: [u16; 2] = [0x8847, 0x8848];
/// PPPoE sessions (RFC 2516).
const PPPOE: u16 = 0x8864;

/// The Ethernet header with its tags.
pub(super) struct Link<'a> {
    /// 0 where there is none.
    pub(super) ether_type: u16,
    pub(super) vlans: (Option<u16>, Option<u16>),
    pub(super) rest: &'a [u8],
    /// Bytes on the wire after the link headers.
    pub(super) wire_rest: u32,
    pub(super) truncated: bool,
}

impl<'a> Link<'a> {
    pub(super) fn parse(packet: &Packet<'a>) -> Self {
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
        let ether_type = reader.u16()?;
        let wire_rest = packet.wire_len.checked_sub(ETHERNET_HEADER)?;
        self.set(ether_type, wire_rest, reader);
        for _ in 0..MAX_HEADERS {
            match ether_type_class(self.ether_type) {
                Class::Tag => self.tag()?,
                Class::VnTag => self.vn_tag()?,
                Class::Mpls => {
                    if self.label()? {
                        break;
                    }
                }
                Class::Session => {
                    self.session()?;
                    break;
                }
                Class::Other => break,
            }
        }
        Some(())
    }

    fn tag(&mut self) -> Option<()> {
        let mut reader = Reader::new(self.rest);
        let tag = reader.u16()? & 0x0fff;
        let ether_type = reader.u16()?;
        self.set(ether_type, self.wire_rest.checked_sub(VLAN_TAG)?, reader);
        // A tag with identifier 0 bears a priority only (IEEE 802.1Q).
        if tag != 0 {
            match self.vlans {
                (None, _) => self.vlans.0 = Some(tag),
                (_, None) => self.vlans.1 = Some(tag),
                _ => {}
            }
        }
        Some(())
    }

    fn vn_tag(&mut self) -> Option<()> {
        let mut reader = Reader::new(self.rest);
        reader.u32()?;
        let ether_type = reader.u16()?;
        self.set(ether_type, self.wire_rest.checked_sub(6)?, reader);
        Some(())
    }

    /// Takes one MPLS label off (RFC 3032); whether it was the last.
    fn label(&mut self) -> Option<bool> {
        let mut reader = Reader::new(self.rest);
        let is_last = reader.u32()? & 0x100 != 0;
        // What follows the last label is told by its first bits alone. Anything
        // but IP keeps the EtherType of the labels.
        let ether_type = match reader.rest().first().map(|byte| byte >> 4) {
            Some(4) if is_last => IPV4,
            Some(6) if is_last => IPV6,
            _ => self.ether_type,
        };
        self.set(ether_type, self.wire_rest.checked_sub(4)?, reader);
        Some(is_last)
    }

    /// Takes the headers of PPPoE and PPP off, where IP follows them.
    fn session(&mut self) -> Option<()> {
        let mut reader = Reader::new(self.rest);
        reader.take(6)?;
        let ether_type = match reader.u16()? {
            0x0021 => IPV4,
            0x0057 => IPV6,
            _ => return Some(()),
        };
        // What the session's length leaves out, the IP header's does too; it is told there.
        self.set(ether_type, self.wire_rest.checked_sub(8)?, reader);
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

enum Class {
    Tag,
    VnTag,
    Mpls,
    Session,
    Other,
}

fn ether_type_class(number: u16) -> Class {
    match number {
        number if TAGS.contains(&number) => Class::Tag,
        VN_TAG => Class::VnTag,
        number if MPLS.contains(&number) => Class::Mpls,
        PPPOE => Class::Session,
        _ => Class::Other,
    }
}
