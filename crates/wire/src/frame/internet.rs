//! An IP header with its extension headers.

use crate::findings::{Finding, Findings};
use crate::key::Addresses;
use etherparse::{Ipv6ExtensionSlice, LaxIpv4Slice, LaxIpv6Slice};

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
    pub(super) fn v4(ip: &LaxIpv4Slice<'a>, wire_rest: u32, broken: bool) -> Self {
        let header = ip.header();
        let header_len = u32::from(header.ihl()) * 4;
        let auth_len = ip.extensions().auth.map_or(0, |auth| auth.slice().len());
        let mut this = Self {
            addresses: Addresses::V4(header.source_addr(), header.destination_addr()),
            protocol: ip.payload().ip_number.0,
            payload_len: 0,
            payload: ip.payload().payload,
            fragment: ip.is_payload_fragmented().then(|| Fragment {
                id: u32::from(header.identification()),
                offset: u32::from(header.fragments_offset().value()) * 8,
                more: header.more_fragments(),
            }),
            broken,
            findings: Findings::default(),
        };
        this.measure(
            u32::from(header.total_len()),
            header_len,
            auth_len,
            wire_rest,
        );
        this.note();
        this
    }

    pub(super) fn v6(ip: &LaxIpv6Slice<'a>, wire_rest: u32, broken: bool) -> Self {
        let header = ip.header();
        let fragment = ip
            .extensions()
            .clone()
            .into_iter()
            .find_map(|ext| match ext {
                Ipv6ExtensionSlice::Fragment(part) => Some(Fragment {
                    id: part.identification(),
                    offset: u32::from(part.fragment_offset().value()) * 8,
                    more: part.more_fragments(),
                }),
                _ => None,
            });
        // A datagram in one fragment is whole (RFC 6946).
        let fragment = fragment.filter(|_| ip.is_payload_fragmented());
        let mut this = Self {
            addresses: Addresses::V6(header.source_addr(), header.destination_addr()),
            protocol: ip.payload().ip_number.0,
            payload_len: 0,
            payload: ip.payload().payload,
            fragment,
            broken,
            findings: Findings::default(),
        };
        // Length 0 is a jumbogram (RFC 2675) or an offload frame above 64 KiB.
        let total = match header.payload_length() {
            0 => 0,
            len => u32::from(len) + IPV6_HEADER,
        };
        this.measure(total, IPV6_HEADER, ip.extensions().slice().len(), wire_rest);
        this.note();
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

    fn note(&mut self) {
        if self.broken {
            self.findings.insert(Finding::TruncatedHeader);
        }
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

const IPV6_HEADER: u32 = 40;
/// Frames are padded to 60 bytes, tagged ones to 64; nothing longer is padded.
const MAX_PADDED: u32 = 64;
/// A frame check sequence and a little alignment are harmless.
const MAX_TRAILER: u32 = 8;
