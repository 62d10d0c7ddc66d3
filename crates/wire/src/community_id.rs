//! Community ID 1.0, seed 0, base64
//! (<https://github.com/corelight/community-id-spec>).

use crate::frame::icmp_counterpart;
use crate::key::{FlowKey, SCTP};
use crate::view::{Initiator, Protocol};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};
use std::net::IpAddr;

/// The identifier of a flow; `None` where the frames are not IP.
pub(crate) fn community_id(key: &FlowKey, initiator: Initiator) -> Option<String> {
    let (number, ported) = match key.protocol {
        Protocol::Tcp => (6, true),
        Protocol::Udp => (17, true),
        Protocol::Icmp => (1, true),
        Protocol::Icmpv6 => (58, true),
        Protocol::Ip(number) => (number, number == SCTP),
        Protocol::Arp | Protocol::Ethernet(_) => return None,
    };
    let (sandbox_port, peer_port) = key.raw_ports();
    let addresses = key.addresses();
    let sandbox = (addresses.first()?, sandbox_port);
    let peer = (addresses.second()?, peer_port);
    let mut ends: [(IpAddr, u16); 2] = match initiator {
        Initiator::Sandbox => [sandbox, peer],
        Initiator::Outside => [peer, sandbox],
    };
    // A message that has no counterpart keeps its direction.
    let one_way = matches!(key.protocol, Protocol::Icmp | Protocol::Icmpv6)
        && ends
            .first()
            .is_none_or(|(_, port)| icmp_counterpart(key.protocol, *port).is_none());
    if !one_way {
        ends.sort_unstable();
    }
    let mut hash = Sha1::new();
    hash.update(0_u16.to_be_bytes());
    for (address, _) in ends {
        match address {
            IpAddr::V4(address) => hash.update(address.octets()),
            IpAddr::V6(address) => hash.update(address.octets()),
        }
    }
    hash.update([number, 0]);
    if ported && !key.later_fragments {
        for (_, port) in ends {
            hash.update(port.to_be_bytes());
        }
    }
    let mut text = String::with_capacity(TEXT_LEN);
    text.push_str("1:");
    STANDARD.encode_string(hash.finalize(), &mut text);
    Some(text)
}

/// The version, and twenty bytes in base64.
const TEXT_LEN: usize = 2 + 28;
