//! What stands before the network header.

/// The header before it, as far as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Ethernet,
    /// Four bytes of address family.
    Loopback,
    RawIp,
    /// `LINKTYPE_LINUX_SLL`: 16 bytes, the EtherType last.
    Cooked,
    /// `LINKTYPE_LINUX_SLL2`: 20 bytes, the EtherType first.
    Cooked2,
    /// Address and control, which may be left out, and the protocol, of which the
    /// first byte may be.
    Ppp,
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// A PPP packet of another protocol, from its protocol field on.
const PPP: [u8; 2] = [0x88, 0x0b];

impl Link {
    /// By its number among the LINKTYPE values.
    pub(super) const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 | 108 => Self::Loopback,
            1 => Self::Ethernet,
            9 | 50 => Self::Ppp,
            // 12 and 14 is what some systems write for raw IP.
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            _ => return None,
        })
    }

    /// The frame with an Ethernet header, and its length on the wire with that.
    pub(super) fn make_ethernet<'a>(
        self,
        data: &'a [u8],
        wire_len: u32,
        made: &'a mut Vec<u8>,
    ) -> (&'a [u8], u32) {
        let (header, ether_type) = match self {
            Self::Ethernet => return (data, wire_len),
            Self::Loopback => (4, None),
            Self::RawIp => (0, None),
            Self::Cooked => (16, pair_at(data, 14)),
            Self::Cooked2 => (20, pair_at(data, 0)),
            Self::Ppp => ppp(data),
        };
        let packet = data.get(header..).unwrap_or_default();
        let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        made.clear();
        made.extend_from_slice(&[0; 12]);
        made.extend_from_slice(&ether_type.unwrap_or(if is_v6 { IPV6 } else { IPV4 }));
        made.extend_from_slice(packet);
        let header = u32::try_from(header).unwrap_or_default();
        (made, wire_len.saturating_sub(header).saturating_add(14))
    }
}

fn pair_at(data: &[u8], at: usize) -> Option<[u8; 2]> {
    data.get(at..)?.first_chunk().copied()
}

/// Length of the header before the packet, and the packet's EtherType.
fn ppp(data: &[u8]) -> (usize, Option<[u8; 2]>) {
    let framing = if data.starts_with(&[0xff, 0x03]) {
        2
    } else {
        0
    };
    // The last byte of a protocol is odd, all before are even.
    match data.get(framing..).unwrap_or_default() {
        [0x21, ..] => (framing + 1, Some(IPV4)),
        [0x57, ..] => (framing + 1, Some(IPV6)),
        [0, 0x21, ..] => (framing + 2, Some(IPV4)),
        [0, 0x57, ..] => (framing + 2, Some(IPV6)),
        _ => (framing, Some(PPP)),
    }
}
