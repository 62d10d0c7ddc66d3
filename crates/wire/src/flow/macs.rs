//! From which MAC the sandbox sends, and to whose.

use crate::findings::{Finding, Findings};
use crate::flow::origin::is_private;
use crate::frame::Frame;
use crate::packet::{Direction, Packet, mac_at};
use std::net::IpAddr;

/// The MACs that the sandbox used first.
#[derive(Debug, Default)]
pub(crate) struct Macs {
    /// Its own.
    own: Option<[u8; 6]>,
    /// The neighbour that takes what goes to public addresses, of each VLAN and version
    /// of IP: the sandbox's router, as far as it uses one. On a bridge any other neighbour
    /// could take such frames, and answer in the name of whatever address they bear.
    hops: Vec<Hop>,
}

#[derive(Debug)]
struct Hop {
    vlans: (Option<u16>, Option<u16>),
    is_ipv6: bool,
    mac: [u8; 6],
}

/// VLANs and versions of IP of which the neighbour is remembered.
const MAX_HOPS: usize = 16;

impl Macs {
    /// What is odd about the MACs of a frame that the sandbox sent.
    pub(crate) fn findings(&mut self, packet: &Packet<'_>, frame: &Frame<'_>) -> Findings {
        let mut findings = Findings::default();
        if packet.direction == Direction::FromSandbox {
            if mac_at(packet.bytes, 6).is_some_and(|mac| *self.own.get_or_insert(mac) != mac) {
                findings.insert(Finding::SpoofedMac);
            }
            if self.is_other_hop(packet, frame) {
                findings.insert(Finding::NextHopChanged);
            }
        }
        findings
    }

    /// Whether a frame to a public address goes by another neighbour than the first such
    /// one, or by all of them at once.
    fn is_other_hop(&mut self, packet: &Packet<'_>, frame: &Frame<'_>) -> bool {
        let Some(ip) = frame.key.addresses.second().filter(|ip| is_routed(*ip)) else {
            return false;
        };
        // Zeros stand where a capture has no Ethernet header.
        let Some(mac) = mac_at(packet.bytes, 0).filter(|mac| *mac != [0; 6]) else {
            return false;
        };
        let (vlans, is_ipv6) = (frame.key.vlans, ip.is_ipv6());
        let mut hops = self.hops.iter();
        if let Some(hop) = hops.find(|hop| hop.vlans == vlans && hop.is_ipv6 == is_ipv6) {
            return hop.mac != mac;
        }
        // The lowest bit of the first byte: more than one is meant (IEEE 802).
        if mac[0] & 1 != 0 || self.hops.len() >= MAX_HOPS {
            return true;
        }
        self.hops.push(Hop {
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
