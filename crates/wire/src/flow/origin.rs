//! What the first frame and the key of a flow tell.

use crate::config::FlowConfig;
use crate::findings::{Finding, Findings};
use crate::flow::dns_kind::DNS_PORT;
use crate::frame::TcpHeader;
use crate::key::FlowKey;
use crate::packet::Direction;
use crate::view::{Initiator, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who began the flow that starts with this frame.
///
/// Whatever the sandbox sends first is its own doing. Only a SYN, or a
/// conversation without connections, is the outside's for sure; of a
/// connection met in its middle the lower port is the server's.
pub(crate) fn initiator(key: &FlowKey, tcp: Option<TcpHeader>, direction: Direction) -> Initiator {
    match (direction, tcp) {
        (Direction::FromSandbox, _) => Initiator::Sandbox,
        (Direction::ToSandbox, None) => Initiator::Outside,
        (Direction::ToSandbox, Some(header)) if header.flags.syn() => {
            if header.flags.ack() {
                Initiator::Sandbox
            } else {
                Initiator::Outside
            }
        }
        (Direction::ToSandbox, Some(_)) => {
            let (sandbox_port, peer_port) = key.raw_ports();
            if peer_port <= sandbox_port {
                Initiator::Sandbox
            } else {
                Initiator::Outside
            }
        }
    }
}

/// What a key, and who began, say is odd.
pub(crate) fn first_findings(key: &FlowKey, initiator: Initiator, config: &FlowConfig) -> Findings {
    let mut findings = Findings::default();
    let peer = key.peer();
    // What is inside of a tunnel goes wherever that ends.
    if let (Some(ip), Initiator::Sandbox, 0) = (peer.ip, initiator, key.within())
        && !is_neighbourly(key, ip, config)
    {
        if config.host_addresses.contains(&ip.to_canonical()) {
            findings.insert(Finding::HostAddress);
        }
        if is_private(ip) && !is_metadata_service(ip) {
            findings.insert(Finding::PrivateAddress);
        }
    }
    if peer.ip.is_some_and(is_metadata_service) {
        findings.insert(Finding::MetadataAddress);
    }
    if peer.port == Some(DNS_PORT)
        && !config.accepted_resolvers.is_empty()
        && peer
            .ip
            .is_some_and(|ip| !config.accepted_resolvers.contains(&ip))
    {
        findings.insert(Finding::DnsUnacceptedResolver);
    }
    findings
}

/// Whether the sandbox sends from an address that is not its own. One of a link
/// (RFC 4291) every interface gives itself: it is another's only where the sandbox's
/// IPv6 addresses are known.
pub(crate) fn is_spoofed(key: &FlowKey, config: &FlowConfig) -> bool {
    let own = &config.sandbox_addresses;
    key.sandbox().ip.is_some_and(|ip| {
        let is_given = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
            && own.iter().all(IpAddr::is_ipv4);
        !own.is_empty()
            && !own.contains(&ip)
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !is_given
    })
}

/// What every sandbox has to do with what is near: it asks its resolver and
/// looks for neighbours.
fn is_neighbourly(key: &FlowKey, peer: IpAddr, config: &FlowConfig) -> bool {
    match key.protocol {
        Protocol::Arp | Protocol::Icmpv6 => true,
        Protocol::Udp | Protocol::Tcp => {
            key.peer().port == Some(DNS_PORT) && config.accepted_resolvers.contains(&peer)
        }
        _ => false,
    }
}

/// Addresses that no router of the Internet knows: RFC 1918, RFC 6598, RFC 4193,
/// those of a link (RFC 3927, RFC 4291) and of the machine itself.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_link_local()
                || ip.is_loopback()
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

/// Addresses at which clouds serve credentials to whoever asks.
fn is_metadata_service(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => ip == METADATA_V6,
    }
}

/// AWS, Azure, Google and others; Alibaba; Azure's WireServer; Oracle.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// AWS over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
