//! Initial packets: where they are in a datagram, and what is in them
//! (RFC 9000 sections 17.2 and 19, RFC 9001 section 5, RFC 9369).

use crate::reader::Reader;
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{DirectionalKeys, Keys, Version};
use std::num::NonZeroU32;

/// An Initial packet as it stands in a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Initial<'a> {
    version: Version,
    version_name: &'static str,
    /// Destination connection id, from which the client's first keys are made.
    destination: &'a [u8],
    /// The whole packet.
    packet: &'a [u8],
    /// Where the protected packet number starts in it.
    number_at: usize,
}

/// Types of packets, as version 1 numbers them. A Retry has no length.
const INITIAL: u8 = 0;
const RETRY: u8 = 3;
/// Longest connection id of the versions that are read.
const MAX_ID: usize = 20;
/// From the start of the packet number to the sample of header protection.
const SAMPLE_AFTER: usize = 4;

/// Whether a datagram starts with a long header of a version that is read. The
/// second bit is set, but for clients that know it may be anything (RFC 9287).
pub(crate) fn starts_like_quic(datagram: &[u8]) -> bool {
    let mut reader = Reader::new(datagram);
    reader.u8().is_some_and(is_long) && reader.u32().and_then(version).is_some()
}

/// The version in a long header at the start of a datagram, where it is one that
/// is not read. That of a version negotiation is 0 and none.
pub(crate) fn unread_version(datagram: &[u8]) -> Option<NonZeroU32> {
    let mut reader = Reader::new(datagram);
    let number = reader.u8().filter(|it| is_long(*it)).and(reader.u32())?;
    let ids = [reader.vec8()?, reader.vec8()?];
    let fits = ids.iter().all(|id| id.rest().len() <= MAX_ID);
    NonZeroU32::new(number).filter(|_| fits && version(number).is_none())
}

const fn is_long(first: u8) -> bool {
    first & 0x80 != 0
}

/// How a version's packets are protected, and what people call it. The keys of
/// the last drafts are those of version 1; before, of the draft that was deployed.
fn version(number: u32) -> Option<(Version, &'static str)> {
    Some(match number {
        1 => (Version::V1, "1"),
        0x6b33_43cf => (Version::V2, "2"),
        0xff00_001d => (Version::V1Draft, "draft-29"),
        0xff00_001e => (Version::V1Draft, "draft-30"),
        0xff00_001f => (Version::V1Draft, "draft-31"),
        0xff00_0020 => (Version::V1Draft, "draft-32"),
        0xff00_0021 => (Version::V1, "draft-33"),
        0xff00_0022 => (Version::V1, "draft-34"),
        _ => return None,
    })
}

/// The Initial packets of a datagram, before anything that is cut off or has no
/// length. What is sent before its Initial, as data of 0-RTT, is passed over.
pub(super) fn initials(datagram: &[u8]) -> impl Iterator<Item = Initial<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        loop {
            let (initial, after) = Initial::parse(rest)?;
            rest = after;
            if initial.is_some() {
                return initial;
            }
        }
    })
}

impl<'a> Initial<'a> {
    /// What people call its version.
    pub(super) const fn version_name(&self) -> &'static str {
        self.version_name
    }

    /// Whether another packet would begin the same connection.
    pub(super) fn begins_as(&self, other: &Self) -> bool {
        (self.version_name, self.destination) == (other.version_name, other.destination)
    }

    /// The packet at the start, if it is an Initial, and what follows it.
    fn parse(bytes: &'a [u8]) -> Option<(Option<Self>, &'a [u8])> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8()?;
        let (version, version_name) = version(reader.u32()?)?;
        // Version 2 numbers the packet types anew (RFC 9369 section 3.2).
        let renumbered = u8::from(matches!(version, Version::V2));
        let kind = (first >> 4).wrapping_sub(renumbered) & 3;
        if !is_long(first) || kind == RETRY {
            return None;
        }
        let destination = reader.vec8()?.rest();
        let source = reader.vec8()?.rest();
        if destination.len() > MAX_ID || source.len() > MAX_ID {
            return None;
        }
        if kind == INITIAL {
            let token = usize::try_from(varint(&mut reader)?).ok()?;
            reader.take(token)?;
        }
        let len = usize::try_from(varint(&mut reader)?).ok()?;
        let number_at = bytes.len() - reader.rest().len();
        reader.take(len)?;
        let (packet, after) = bytes.split_at_checked(number_at + len)?;
        let initial = Self {
            version,
            version_name,
            destination,
            packet,
            number_at,
        };
        Some(((kind == INITIAL).then_some(initial), after))
    }

    /// The keys of the client whose first packet this is.
    pub(super) fn keys(&self) -> Option<DirectionalKeys> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
        let Keys { remote, .. } = suite.keys(self.destination, Side::Server, self.version);
        Some(remote)
    }

    /// Opens the packet and gives its CRYPTO frames to `found`; `None` where
    /// the keys are not its own. Answers whether all its frames were read.
    pub(super) fn open(
        &self,
        keys: &DirectionalKeys,
        found: &mut dyn FnMut(u64, &[u8]),
    ) -> Option<bool> {
        let mut packet = self.packet.to_vec();
        let sample_at = self.number_at + SAMPLE_AFTER;
        let sample = self
            .packet
            .get(sample_at..sample_at + keys.header.sample_len())?;
        let (first, rest) = packet.split_first_mut()?;
        let number = rest.get_mut(self.number_at - 1..sample_at - 1)?;
        keys.header.decrypt_in_place(sample, first, number).ok()?;
        let number_len = usize::from(*first & 3) + 1;
        let number = number
            .get(..number_len)?
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (header, payload) = packet.split_at_mut_checked(self.number_at + number_len)?;
        // Initial packets are few: their numbers are never shortened by a lap.
        let payload = keys.packet.decrypt_in_place(number, header, payload).ok()?;
        // A frame that is none ends the reading, not the packet's being genuine.
        Some(frames(payload, found).is_some())
    }
}

const PADDING: u64 = 0;
const PING: u64 = 1;
const ACK: u64 = 2;
const ACK_ECN: u64 = 3;
const CRYPTO: u64 = 6;
const CLOSE: u64 = 0x1c;

fn frames(payload: &[u8], found: &mut dyn FnMut(u64, &[u8])) -> Option<()> {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        match varint(&mut reader)? {
            PADDING | PING => {}
            kind @ (ACK | ACK_ECN) => {
                varint(&mut reader)?;
                varint(&mut reader)?;
                let ranges = varint(&mut reader)?;
                varint(&mut reader)?;
                let more = if kind == ACK_ECN { 3 } else { 0 };
                // Each takes a byte at least, so the payload bounds the loop.
                for _ in 0..ranges.checked_mul(2)?.checked_add(more)? {
                    varint(&mut reader)?;
                }
            }
            CRYPTO => {
                let offset = varint(&mut reader)?;
                let len = usize::try_from(varint(&mut reader)?).ok()?;
                found(offset, reader.take(len)?);
            }
            CLOSE => {
                varint(&mut reader)?;
                varint(&mut reader)?;
                let reason = usize::try_from(varint(&mut reader)?).ok()?;
                reader.take(reason)?;
            }
            // Of no other kind in an Initial packet (RFC 9000 section 12.4).
            _ => return None,
        }
    }
    Some(())
}

/// A number whose first two bits tell its length (RFC 9000 section 16).
fn varint(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.u8()?;
    let mut value = u64::from(first & 0x3f);
    for _ in 1..1_u32 << (first >> 6) {
        value = value << 8 | u64::from(reader.u8()?);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_every_length() {
        #[track_caller]
        fn check(bytes: &[u8], expected: Option<u64>) {
            assert_eq!(varint(&mut Reader::new(bytes)), expected);
        }
        // RFC 9000 appendix A.1.
        check(
            &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
            Some(151_288_809_941_952_652),
        );
        check(&[0x9d, 0x7f, 0x3e, 0x7d], Some(494_878_333));
        check(&[0x7b, 0xbd], Some(15_293));
        check(&[0x25], Some(37));
        check(&[0x40], None);
        check(&[], None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(body: Vec<u8>, first in 0xc0_u8.., version in 0..3_usize) {
            let version = [1_u32, 0x6b33_43cf, 0xff00_001d][version];
            let datagram = [&[first], &version.to_be_bytes()[..], &[4, 1, 2, 3, 4, 0, 0], &body].concat();
            for initial in initials(&datagram) {
                let keys = initial.keys().unwrap();
                let _ = initial.open(&keys, &mut |_, _| {});
            }
            let _ = frames(&body, &mut |_, _| {});
        }
    }
}
