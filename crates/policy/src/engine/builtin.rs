//! What is allowed without a rule, because no sandbox works without it.

use super::reason::{endpoint, grouped};
use super::{Engine, Judgement, findings, unless};
use findings::Basis;
use sandtrace_event::{Flow, Limits, Protocol};
use std::net::{IpAddr, Ipv6Addr};

const RESOLVER: &str = "builtin:accepted-resolver";
const NEIGHBOUR: &str = "builtin:neighbour-discovery";

/// The port at which a resolver is one: at others, somebody else may answer.
pub(super) const DNS_PORT: u16 = 53;

/// Bytes that one conversation may carry unread, where what it says is not
/// judged otherwise.
const UNREAD_BYTES: u64 = 64 * 1024;

/// MLD (RFC 2710, RFC 3810), router and neighbour discovery (RFC 4861, types
/// 133 to 136).
const ICMPV6_DISCOVERY: [u8; 8] = [130, 131, 132, 133, 134, 135, 136, 143];

impl Engine {
    /// A conversation that no rule matches.
    pub(super) fn builtin_egress(&self, flow: &Flow) -> Option<Judgement> {
        self.asks_accepted_resolver(flow)
            .then(|| resolver(flow))
            .or_else(|| discovers(flow, flow.dst_ip).then(|| bounded(flow, NEIGHBOUR)))
    }

    pub(super) fn builtin_ingress(&self, flow: &Flow) -> Option<Judgement> {
        // The neighbour's message is addressed to a group that the sandbox is in.
        let local = discovers(flow, flow.dst_ip) || discovers(flow, flow.src_ip);
        local.then(|| bounded(flow, NEIGHBOUR))
    }

    fn asks_accepted_resolver(&self, flow: &Flow) -> bool {
        matches!(flow.protocol, Protocol::Udp | Protocol::Tcp)
            && flow.dst_port == Some(DNS_PORT)
            && flow.dst_ip.is_some_and(|address| self.accepts(address))
    }
}

/// Questions are judged one by one, as `dns_query` records; over TCP those in
/// the first bytes of a connection.
fn resolver(flow: &Flow) -> Judgement {
    if flow.protocol == Protocol::Tcp {
        return bounded(flow, RESOLVER);
    }
    let mut objections = Vec::new();
    findings::objections(flow, BASIS, &mut objections);
    Judgement {
        verdict: Some(unless(RESOLVER, &objections, || reason(flow, RESOLVER))),
        limits: Limits::default(),
    }
}

fn bounded(flow: &Flow, rule: &str) -> Judgement {
    let mut objections = Vec::new();
    // ARP has no payload: all of its frames count.
    let sent = match flow.protocol {
        Protocol::Arp => flow.wire_bytes_sent.0.max(flow.bytes_sent.0),
        _ => flow.bytes_sent.0,
    };
    if sent > UNREAD_BYTES {
        let [sent, limit] = [sent, UNREAD_BYTES].map(grouped);
        objections.push(format!(
            "{sent} B sent exceed {limit} B for {}",
            reason(flow, rule)
        ));
    }
    findings::objections(flow, BASIS, &mut objections);
    Judgement {
        verdict: Some(unless(rule, &objections, || reason(flow, rule))),
        limits: Limits {
            max_bytes_per_call: None,
            max_bytes_total: Some(UNREAD_BYTES),
        },
    }
}

/// These rules name addresses, and no bytes but their own bound.
const BASIS: Basis = Basis {
    by_name: false,
    by_single_address: true,
    claim_suffices: false,
    names_stay_outside: false,
    bounds_bytes: true,
    hosts_denied: false,
};

fn reason(flow: &Flow, rule: &str) -> String {
    if rule == NEIGHBOUR {
        return "neighbour discovery on the local link".to_owned();
    }
    let host = flow
        .dst_ip
        .map_or_else(String::new, |address| address.to_string());
    match flow.protocol {
        Protocol::Tcp => format!("the accepted resolver {} over TCP", endpoint(&host, flow)),
        _ => format!("the accepted resolver {}", endpoint(&host, flow)),
    }
}

fn discovers(flow: &Flow, address: Option<IpAddr>) -> bool {
    match flow.protocol {
        Protocol::Arp => true,
        Protocol::Icmpv6 => {
            flow.icmp_type
                .is_some_and(|kind| ICMPV6_DISCOVERY.contains(&kind))
                && matches!(address, Some(IpAddr::V6(address)) if stays_on_link(address))
        }
        _ => false,
    }
}

/// No router forwards it: link-local, or multicast of interface or link
/// scope (RFC 4291 §2.7).
fn stays_on_link(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_unicast_link_local() || (first == 0xff && matches!(second & 0x0f, 1 | 2))
}
