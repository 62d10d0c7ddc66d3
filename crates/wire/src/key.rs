//! What makes packets belong to one flow.

use crate::packet::Direction;
use crate::view::{Endpoint, Protocol};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of a frame, in the frame's own order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Addresses {
    /// Not an IP frame.
    #[default]
    None,
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// Key of a flow, seen from the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    pub(crate) protocol: Protocol,
    addresses: Addresses,
    /// The sandbox's port and the peer's; of ICMP the mapped message types.
    ports: (u16, u16),
    /// Outer and inner VLAN identifier.
    vlans: (Option<u16>, Option<u16>),
    /// Fragments that were not joined, which bear no ports.
    pub(crate) later_fragments: bool,
    /// Number of the tunnel that carries it; 0 where none does.
    within: u32,
}

/// A frame's side of the key, in the frame's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameKey {
    pub(crate) protocol: Protocol,
    pub(crate) addresses: Addresses,
    pub(crate) ports: (u16, u16),
    pub(crate) vlans: (Option<u16>, Option<u16>),
    pub(crate) later_fragment: bool,
}

impl FlowKey {
    /// The key of the flow that a frame belongs to.
    pub(crate) fn new(frame: FrameKey, direction: Direction, within: u32) -> Self {
        let FrameKey {
            addresses, ports, ..
        } = frame;
        let (addresses, ports) = match direction {
            Direction::FromSandbox => (addresses, ports),
            Direction::ToSandbox => (addresses.swapped(), (ports.1, ports.0)),
        };
        Self {
            protocol: frame.protocol,
            addresses,
            ports,
            vlans: frame.vlans,
            later_fragments: frame.later_fragment,
            within,
        }
    }

    /// The sandbox's end.
    pub(crate) fn sandbox(&self) -> Endpoint {
        Endpoint {
            ip: self.addresses.first(),
            port: self.has_ports().then_some(self.ports.0),
        }
    }

    /// The other end.
    pub(crate) fn peer(&self) -> Endpoint {
        Endpoint {
            ip: self.addresses.second(),
            port: self.has_ports().then_some(self.ports.1),
        }
    }

    /// The sandbox's address and the peer's.
    pub(crate) const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Both ports, or what stands in for them; zeros where nothing does.
    pub(crate) const fn raw_ports(&self) -> (u16, u16) {
        self.ports
    }

    /// Number of the tunnel that carries it; 0 where none does.
    pub(crate) const fn within(&self) -> u32 {
        self.within
    }

    /// The outer VLAN identifier.
    pub(crate) const fn vlan(&self) -> Option<u16> {
        self.vlans.0
    }

    fn has_ports(&self) -> bool {
        matches!(
            self.protocol,
            Protocol::Tcp | Protocol::Udp | Protocol::Ip(SCTP)
        ) && !self.later_fragments
    }
}

/// IP protocol number of SCTP.
pub(crate) const SCTP: u8 = 132;

impl Addresses {
    pub(crate) const fn first(self) -> Option<IpAddr> {
        match self {
            Self::None => None,
            Self::V4(first, _) => Some(IpAddr::V4(first)),
            Self::V6(first, _) => Some(IpAddr::V6(first)),
        }
    }

    pub(crate) const fn second(self) -> Option<IpAddr> {
        self.swapped().first()
    }

    /// For `Hash`, in few and wide writes.
    pub(crate) fn hash_wide<H: Hasher>(self, state: &mut H) {
        match self {
            Self::None => {}
            Self::V4(a, b) => {
                state.write_u64(u64::from(a.to_bits()) << 32 | u64::from(b.to_bits()));
            }
            Self::V6(a, b) => {
                state.write_u128(a.to_bits());
                state.write_u128(b.to_bits());
            }
        }
    }

    pub(crate) const fn swapped(self) -> Self {
        match self {
            Self::None => Self::None,
            Self::V4(a, b) => Self::V4(b, a),
            Self::V6(a, b) => Self::V6(b, a),
        }
    }
}

// Few and wide writes: hashing is a good part of the cost of a packet.
impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addresses.hash_wide(state);
        let (class, number) = match self.protocol {
            Protocol::Tcp => (0, 0),
            Protocol::Udp => (1, 0),
            Protocol::Icmp => (2, 0),
            Protocol::Icmpv6 => (3, 0),
            Protocol::Arp => (4, 0),
            Protocol::Ip(number) => (5, u64::from(number)),
            Protocol::Ethernet(number) => (6, u64::from(number)),
        };
        state.write_u64(
            u64::from(self.ports.0) << 48 | u64::from(self.ports.1) << 32 | class << 16 | number,
        );
        if let (outer, inner) = self.vlans
            && (outer.is_some() || inner.is_some())
        {
            state.write_u32(
                u32::from(outer.unwrap_or_default()) << 16 | u32::from(inner.unwrap_or_default()),
            );
        }
        if self.within != 0 {
            state.write_u32(self.within);
        }
    }
}
