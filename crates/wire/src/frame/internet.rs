//! An IP header with its extension headers.

use crate::findings::{Finding, Findings};
use crate::key::Addresses;
use crate::reader::Reader;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An IP header with its extension headers.
pub(super) struct Internet<'a> {
    pub(super) addresses: Addresses,
    pub(super) protocol: u8,
    /// Bytes on the wire after the IP headers.
    pub(super) payload_len: u32,
    pub(super) payload: &'a [u8],
    /// Where it is a part of a datagram: which.
    pub(super) fragment: Option<Fragment>,
    /// The chain of headers could not be followed to its end.
    pub(super) broken: bool,
    pub(super) findings: Findings,
}

impl<'a> Internet<'a> {
    /// Reads an IPv4 header (RFC 791); `None` where it is not whole or not one.
    pub(super) fn v4(bytes: &'a [u8], wire_rest: u32) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8()?;
        let words = first & 0x0f;
        if first >> 4 != 4 || words < 5 {
            return None;
        }
        reader.u8()?;
        let total = reader.u16()?;
        let (id, part) = (reader.u16()?, reader.u16()?);
        reader.u8()?;
        let protocol = reader.u8()?;
        reader.u16()?;
        let from = Ipv4Addr::from(reader.array::<4>()?);
        let to = Ipv4Addr::from(reader.array::<4>()?);
        reader.take(usize::from(words - 5) * 4)?;
        let fragment = Fragment {
            id: u32::from(id),
            offset: u32::from(part & 0x1fff) * 8,
            more: part & 0x2000 != 0,
        };
        let mut this = Self {
            addresses: Addresses::V4(from, to),
            protocol,
            payload_len: 0,
            payload: &[],
            fragment: fragment.is_part().then_some(fragment),
            broken: false,
            findings: Findings::default(),
        };
        let header = u32::from(words) * 4;
        // Of the extensions, IPv4 has the authentication header alone (RFC 4302).
        let extensions = match protocol {
            AUTHENTICATION => this.extensions(&mut reader),
            _ => 0,
        };
        this.payload = reader.rest();
        this.measure(u32::from(total), header, extensions, wire_rest);
        Some(this)
    }

    /// Reads an IPv6 header and its extensions (RFC 8200); `None` where the
    /// first is not whole or not one.
    pub(super) fn v6(bytes: &'a [u8], wire_rest: u32) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? >> 28 != 6 {
            return None;
        }
        let length = reader.u16()?;
        let protocol = reader.u8()?;
        reader.u8()?;
        let from = Ipv6Addr::from(reader.array::<16>()?);
        let to = Ipv6Addr::from(reader.array::<16>()?);
        let mut this = Self {
            addresses: Addresses::V6(from, to),
            protocol,
            payload_len: 0,
            payload: &[],
            fragment: None,
            broken: false,
            findings: Findings::default(),
        };
        let extensions = this.extensions(&mut reader);
        this.payload = reader.rest();
        // Length 0 is a jumbogram (RFC 2675) or an offload frame above 64 KiB.
        let total = match length {
            0 => 0,
            length => u32::from(length) + IPV6_HEADER,
        };
        this.measure(total, IPV6_HEADER, extensions, wire_rest);
        Some(this)
    }

    /// Takes extension headers off, up to the payload or to where a part of a
    /// datagram begins. Answers their bytes. Each takes some, so this ends.
    fn extensions(&mut self, reader: &mut Reader<'a>) -> u32 {
        let mut taken = 0;
        while self.fragment.is_none() && is_extension(self.protocol) {
            let mut ahead = *reader;
            let Some((next, len)) = self.extension(&mut ahead) else {
                self.broken = true;
                self.findings.insert(Finding::TruncatedHeader);
                break;
            };
            self.protocol = next;
            taken += len;
            *reader = ahead;
        }
        taken
    }

    /// Takes one extension header off: what follows it, and its length.
    fn extension(&mut self, reader: &mut Reader<'a>) -> Option<(u8, u32)> {
        let (next, units) = (reader.u8()?, reader.u8()?);
        let len = match self.protocol {
            FRAGMENT => {
                let part = reader.u16()?;
                let fragment = Fragment {
                    id: reader.u32()?,
                    offset: u32::from(part & 0xfff8),
                    more: part & 1 != 0,
                };
                // A datagram in one fragment is whole (RFC 6946).
                self.fragment = fragment.is_part().then_some(fragment);
                return Some((next, 8));
            }
            AUTHENTICATION => (u32::from(units) + 2) * 4,
            _ => (u32::from(units) + 1) * 8,
        };
        reader.take(usize::try_from(len).ok()?.checked_sub(2)?)?;
        Some((next, len))
    }

    /// Sets how many payload bytes are on the wire. `total` is the datagram's
    /// length as its header states it, 0 where an offload engine is to fill it in.
    fn measure(&mut self, total: u32, header: u32, extensions: u32, wire_rest: u32) {
        let headers = header.saturating_add(extensions);
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
}

/// Which part of which datagram a fragment is (RFC 791, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    /// Where its first byte stands in the datagram's payload.
    pub(crate) offset: u32,
    /// Whether another part follows it.
    pub(crate) more: bool,
}

impl Fragment {
    const fn is_part(self) -> bool {
        self.offset != 0 || self.more
    }
}

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// Hop-by-hop, routing, fragment, authentication, destination options,
/// mobility, host identity, shim6: what has a length and a next header.
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140
    )
}

const IPV6_HEADER: u32 = 40;
/// Frames are padded to 60 bytes, tagged ones to 64: to 46 behind those headers. With a
/// frame check sequence it is 4 more; nothing longer is padded.
const MAX_PADDED: u32 = 50;
/// A frame check sequence and a little alignment are harmless.
const MAX_TRAILER: u32 = 8;
