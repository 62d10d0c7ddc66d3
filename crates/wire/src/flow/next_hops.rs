//! Through which neighbour the sandbox sends.

use crate::flow::origin::is_private;
use crate::frame::Frame;
use crate::packet::{Direction, Packet};
use std::net::IpAddr;

/// The neighbour that takes what goes to public addresses, of each VLAN and version of
/// IP: the sandbox's router, as far as it uses one. On a bridge any other neighbour could
/// take such frames, and answer in the name of whatever address they bear.
#[derive(Debug, Default)]
pub(crate) struct NextHops(Vec<Hop>);

#[derive(Debug)]
struct Hop {
    vlans: (Option<u16>, Option<u16>),
    is_ipv6: bool,
    mac: [u8; 6],
}

/// VLANs and versions of IP of which the neighbour is remembered.
const MAX_HOPS: usize = 16;

impl NextHops {
    /// Whether the sandbox sends this frame to a public address by another neighbour
    /// than the first such one, or by all of them at once.
    pub(crate) fn is_other(&mut self, packet: &Packet<'_>, frame: &Frame<'_>) -> bool {
        if packet.direction == Direction::ToSandbox {
            return false;
        }
        let Some(ip) = frame.key.addresses.second().filter(|ip| is_routed(*ip)) else {
            return false;
        };
        let mac = packet.bytes.first_chunk::<6>();
        // Zeros stand where a capture has no Ethernet header.
        let Some(&mac) = mac.filter(|mac| **mac != [0; 6]) else {
            return false;
        };
        let (vlans, is_ipv6) = (frame.key.vlans, ip.is_ipv6());
        let mut hops = self.0.iter();
        if let Some(hop) = hops.find(|hop| hop.vlans == vlans && hop.is_ipv6 == is_ipv6) {
            return hop.mac != mac;
        }
        // The lowest bit of the first byte: more than one is meant (IEEE 802).
        if mac[0] & 1 != 0 || self.0.len() >= MAX_HOPS {
            return true;
        }
        self.0.push(Hop {
            vlans,
            is_ipv6,
            mac,
        });
        false
    }
}

/// Whether a router has to take what goes there, however the sandbox's link is set up.
fn is_routed(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_multicast() && !ip.is_unspecified() && !is_broadcast && !is_private(ip)
}
