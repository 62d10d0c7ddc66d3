//! Community ID 1.0, seed 0, base64
//! (<https://github.com/corelight/community-id-spec>).

use crate::frame::icmp_counterpart;
use crate::key::{Addresses, FlowKey, SCTP};
use crate::view::{Initiator, Protocol};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

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
    let ends = |sandbox: &[u8], peer: &[u8]| {
        let sandbox = End::new(sandbox, sandbox_port);
        let peer = End::new(peer, peer_port);
        match initiator {
            Initiator::Sandbox => [sandbox, peer],
            Initiator::Outside => [peer, sandbox],
        }
    };
    let mut ends = match key.addresses() {
        Addresses::None => return None,
        Addresses::V4(a, b) => ends(&a.octets(), &b.octets()),
        Addresses::V6(a, b) => ends(&a.octets(), &b.octets()),
    };
    // A message that has no counterpart keeps its direction.
    let one_way = matches!(key.protocol, Protocol::Icmp | Protocol::Icmpv6)
        && ends
            .first()
            .is_none_or(|source| icmp_counterpart(key.protocol, source.port).is_none());
    if !one_way {
        ends.sort_unstable();
    }
    let mut hash = Sha1::new();
    hash.update(0_u16.to_be_bytes());
    for end in &ends {
        hash.update(&end.address);
    }
    hash.update([number, 0]);
    if ported && !key.later_fragments {
        for end in &ends {
            hash.update(end.port.to_be_bytes());
        }
    }
    Some(format!("1:{}", STANDARD.encode(hash.finalize())))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct End {
    address: Vec<u8>,
    port: u16,
}

impl End {
    fn new(address: &[u8], port: u16) -> Self {
        Self {
            address: address.to_vec(),
            port,
        }
    }
}
