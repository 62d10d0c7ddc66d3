//! Entries of the tables that frames.bpf.c keeps, and what it hands over.

use crate::bpf::tables::{long, word};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct key` there.
pub(super) const KEY_BYTES: usize = 44;
/// `struct flow` there.
pub(super) const FLOW_BYTES: usize = 152;
/// `struct direction` there.
const DIRECTION_BYTES: usize = 64;
/// `struct event` there, and where its key is.
const EVENT_BYTES: usize = 208;
const KEY_AT: usize = 36;

/// A flow's key as the kernel has it, its interface included.
pub type BpfFlowId = [u8; KEY_BYTES];

/// What a flow's key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfFlowKey {
    /// The sandbox's address and port.
    pub sandbox: (IpAddr, u16),
    /// The other end's.
    pub peer: (IpAddr, u16),
    /// TCP, else UDP.
    pub is_tcp: bool,
    /// Identifier of the VLAN tag that the kernel took out; 0 is none.
    pub vlan: u16,
}

impl BpfFlowKey {
    /// Reads a key.
    #[must_use]
    pub fn parse(id: &BpfFlowId) -> Option<Self> {
        let id = id.get(4..)?;
        let version = *id.get(39)?;
        let address = |at: usize| match version {
            4 => {
                let bytes: [u8; 4] = id.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(bytes)))
            }
            _ => {
                let bytes: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(bytes)))
            }
        };
        let bytes = |at: usize| id.get(at..at + 2)?.try_into().ok();
        Some(Self {
            sandbox: (address(0)?, u16::from_be_bytes(bytes(32)?)),
            peer: (address(16)?, u16::from_be_bytes(bytes(34)?)),
            vlan: u16::from_ne_bytes(bytes(36)?),
            is_tcp: *id.get(38)? == 6,
        })
    }
}

/// What was only counted of one direction of a flow, since it was noted down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BpfSums {
    /// Frames as the interface counts them.
    pub frames: u64,
    /// Their bytes, as the interface counts them.
    pub bytes: u64,
    /// Bytes of payload.
    pub payload: u64,
    /// Segments that offloads make of the frames, beyond those; from 0 again after
    /// 32 bits.
    pub segments: u32,
    /// When the latest was seen, in nanoseconds of `CLOCK_BOOTTIME`, to the
    /// kernel's tick.
    pub last_ns: u64,
    /// When the latest payload was seen, counted or handed over.
    pub payload_ns: u64,
    /// TCP: the sequence number after the latest payload.
    pub next: u32,
    /// TCP: the highest acknowledgement.
    pub ack: u32,
}

impl BpfSums {
    /// `ahead_ns`: how far `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`.
    fn parse(bytes: &[u8], ahead_ns: u64) -> Option<Self> {
        let time = |at| {
            let time = long(bytes, at)?;
            // Zero is no time.
            Some(if time == 0 {
                0
            } else {
                time.saturating_add(ahead_ns)
            })
        };
        Some(Self {
            frames: long(bytes, 0)?,
            bytes: long(bytes, 8)?,
            payload: long(bytes, 16)?,
            segments: word(bytes, 52)?,
            last_ns: time(24)?,
            payload_ns: time(32)?,
            next: word(bytes, 44)?,
            ack: word(bytes, 48)?,
        })
    }

    fn both(bytes: &[u8], ahead_ns: u64) -> Option<[Self; 2]> {
        let second = bytes.get(DIRECTION_BYTES..)?;
        Some([
            Self::parse(bytes, ahead_ns)?,
            Self::parse(second, ahead_ns)?,
        ])
    }
}

/// A flow and its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfFlow {
    /// Names it.
    pub id: BpfFlowId,
    /// When it was noted down, which tells it from an earlier one of the same
    /// key. Nanoseconds of `CLOCK_BOOTTIME`.
    pub born_ns: u64,
    /// What the sandbox sent, and what it received.
    pub sums: [BpfSums; 2],
}

impl BpfFlow {
    /// The flow of an entry, and how many of its frames were handed over, from 0
    /// again after 32 bits.
    pub(super) fn parse(key: &[u8], value: &[u8], ahead_ns: u64) -> Option<(Self, u32)> {
        let flow = Self {
            id: key.try_into().ok()?,
            born_ns: long(value, 0)?,
            sums: BpfSums::both(value.get(24..)?, ahead_ns)?,
        };
        Some((flow, word(value, 148)?))
    }
}

/// The number of the watch that a flow or frame belongs to.
pub(super) fn owner(id: &[u8]) -> Option<u32> {
    word(id, 0)
}

impl BpfFlow {
    /// Which watch it belongs to.
    #[must_use]
    pub fn owner(&self) -> u32 {
        owner(&self.id).unwrap_or_default()
    }
}

/// A frame that was handed over.
#[derive(Clone, Copy, Debug)]
pub struct BpfFrame<'a> {
    /// Which watch it belongs to.
    pub owner: u32,
    /// The interface's place in the table of them.
    pub(super) slot: u32,
    /// When it was seen, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Its flow as it was before this frame; absent where it belongs to none.
    pub flow: Option<BpfFlow>,
    /// Bytes of payload in each segment where an offload is to cut it; 0: none is.
    pub segment: u32,
    /// Length of the whole frame, without a tag that the kernel took out.
    pub length: u32,
    /// What was handed over of it, from the Ethernet header on.
    pub captured: &'a [u8],
    /// VLAN tag control information that the kernel took out.
    pub vlan_tci: Option<u16>,
    /// True for host to sandbox.
    pub outgoing: bool,
}

impl BpfFrame<'_> {
    /// The same with other bytes in the place of what was handed over, so that
    /// it can outlive the ring.
    #[must_use]
    pub fn with_captured<'b>(&self, captured: &'b [u8]) -> BpfFrame<'b> {
        BpfFrame { captured, ..*self }
    }
}

impl<'a> BpfFrame<'a> {
    pub(super) fn parse(bytes: &'a [u8], ahead_ns: u64) -> Option<Self> {
        let captured = usize::try_from(word(bytes, 20)?).ok()?;
        let born_ns = long(bytes, 8)?;
        let flow = if born_ns == 0 {
            None
        } else {
            Some(BpfFlow {
                id: bytes.get(KEY_AT..KEY_AT + KEY_BYTES)?.try_into().ok()?,
                born_ns,
                sums: BpfSums::both(bytes.get(80..EVENT_BYTES)?, ahead_ns)?,
            })
        };
        let tci = u16::from_ne_bytes(bytes.get(24..26)?.try_into().ok()?);
        Some(Self {
            owner: owner(bytes.get(KEY_AT..)?)?,
            slot: word(bytes, 28)?,
            segment: word(bytes, 32)?,
            at_ns: long(bytes, 0)?,
            flow,
            length: word(bytes, 16)?,
            captured: bytes.get(EVENT_BYTES..EVENT_BYTES.checked_add(captured)?)?,
            vlan_tci: (*bytes.get(26)? != 0).then_some(tci),
            outgoing: *bytes.get(27)? != 0,
        })
    }
}

/// What the programs could not hand over or note down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BpfFrameLosses {
    /// Frames that are in no sum and were not handed over: sent, received.
    pub frames: [u64; 2],
    /// Their bytes: sent, received.
    pub bytes: [u64; 2],
    /// Frames that are in the sums but should have been handed over.
    pub unread: u64,
    /// Frames for whose flow there was no room; they were handed over.
    pub flows: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_whatever_its_bytes() {
        let mut bytes = vec![0x7f_u8; EVENT_BYTES + 128];
        assert!(BpfFrame::parse(&bytes, 1).is_none(), "longer than there is");
        bytes[20..24].copy_from_slice(&100_u32.to_ne_bytes());
        let frame = BpfFrame::parse(&bytes, 1).unwrap();
        assert_eq!((frame.captured.len(), frame.vlan_tci), (100, Some(0x7f7f)));
        for length in 0..bytes.len() {
            let _any = BpfFrame::parse(&bytes[..length], 1);
        }
    }

    #[test]
    fn keys_have_addresses_of_both_kinds() {
        let mut id = [0_u8; KEY_BYTES];
        id[4..8].copy_from_slice(&[10, 0, 0, 2]);
        id[20..24].copy_from_slice(&[10, 0, 0, 1]);
        id[36..40].copy_from_slice(&[0x80, 0, 0, 53]);
        (id[42], id[43]) = (17, 4);
        let key = BpfFlowKey::parse(&id).unwrap();
        assert_eq!(key.sandbox, ([10, 0, 0, 2].into(), 32_768));
        assert_eq!(key.peer, ([10, 0, 0, 1].into(), 53));
        assert!(!key.is_tcp);
        (id[42], id[43]) = (6, 6);
        let key = BpfFlowKey::parse(&id).unwrap();
        assert!(key.is_tcp && key.peer.0.is_ipv6());
    }
}
