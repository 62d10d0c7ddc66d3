//! Between whom a single frame goes.

use crate::frame::Frame;
use crate::key::FlowKey;
use crate::packet::{Direction, Moment, Packet};
use crate::view::{Endpoint, Protocol};

/// The two ends of a frame, as a flow's key would have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEnds {
    /// What it carries.
    pub protocol: Protocol,
    /// Who sent it.
    pub from: Endpoint,
    /// To whom.
    pub to: Endpoint,
    /// Outer VLAN identifier, where the frame has a tag.
    pub vlan: Option<u16>,
    /// It is a part of a datagram, so that its ports are not known.
    pub is_fragment: bool,
}

impl FrameEnds {
    /// Reads an Ethernet frame of `wire_len` bytes of which `bytes` were captured.
    #[must_use]
    pub fn of(bytes: &[u8], wire_len: u32) -> Self {
        let direction = Direction::FromSandbox;
        let frame = Frame::parse(&Packet {
            at: Moment::default(),
            direction,
            bytes,
            wire_len,
            vlan: None,
        });
        let key = FlowKey::new(frame.key, direction, 0);
        Self {
            protocol: key.protocol,
            from: key.sandbox(),
            to: key.peer(),
            vlan: key.vlan(),
            is_fragment: frame.fragment.is_some(),
        }
    }
}
