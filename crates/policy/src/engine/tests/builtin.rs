//! Rules that every policy has.

use crate::testing::*;
use sandtrace_event::{Count, Flow, IngressFlow, Limits, Protocol};

const RULES: &str = "rules: [{id: a, type: network_egress, destinations: [{host: a.example}]}]";

#[track_caller]
fn check(flow: Flow, expected: &str) {
    assert_eq!(judged(&mut engine(RULES), flow), expected);
}

fn to(address_text: &str, protocol: Protocol, port: Option<u16>) -> Flow {
    let mut flow = flow(1);
    flow.dst_ip = Some(address(address_text));
    flow.dst_host = address_text.to_owned();
    (flow.protocol, flow.dst_port) = (protocol, port);
    flow
}

#[test]
fn accepted_resolvers_may_be_reached() {
    let udp = to(RESOLVER, Protocol::Udp, Some(53));
    check(
        udp.clone(),
        "allow builtin:accepted-resolver: the accepted resolver 10.0.0.53:53",
    );
    let tcp = to(RESOLVER, Protocol::Tcp, Some(53));
    check(
        tcp.clone(),
        "allow builtin:accepted-resolver: the accepted resolver 10.0.0.53:53 over TCP",
    );
    check(
        to(RESOLVER, Protocol::Udp, Some(54)),
        "deny -: no rule matches host 10.0.0.53:54",
    );
    check(
        to("8.8.8.8", Protocol::Udp, Some(53)),
        "deny -: no rule matches host 8.8.8.8:53",
    );

    for (finding, reason) in [
        (
            "dns_malformed",
            "a message to the DNS port is more than a question, no DNS, or unread",
        ),
        (
            "reassembly_limit",
            "the connection's start was not read: the reassembly memory was used up",
        ),
        (
            "start_unread",
            "the connection's start was not read to its end: a host may have been named behind it",
        ),
    ] {
        let mut unread = tcp.clone();
        unread.findings = vec![finding.into()];
        check(
            unread,
            &format!("anomaly builtin:accepted-resolver: {reason}"),
        );
    }
    let mut large = tcp;
    large.bytes_sent = Count(65_537);
    check(
        large,
        "anomaly builtin:accepted-resolver: 65,537 B sent exceed 65,536 B for \
         the accepted resolver 10.0.0.53:53 over TCP",
    );

    let mut rule_first = engine(
        "rules: [{id: no, type: network_egress, action: deny, destinations: [{cidr: 10.0.0.0/8}]}]",
    );
    assert_eq!(
        judged(&mut rule_first, udp),
        "deny no: the rule denies 10.0.0.53:53"
    );
}

#[test]
fn neighbours_may_be_found() {
    let ok = "allow builtin:neighbour-discovery: neighbour discovery on the local link";
    let mut arp = to("10.0.0.1", Protocol::Arp, None);
    check(arp.clone(), ok);
    assert_eq!(
        engine(RULES).judge(&observed(arp.clone())).limits,
        Limits {
            max_bytes_per_call: None,
            max_bytes_total: Some(65_536)
        }
    );
    arp.wire_bytes_sent = Count(1_000_000);
    check(
        arp,
        "anomaly builtin:neighbour-discovery: 1,000,000 B sent exceed 65,536 B for neighbour discovery on the local link",
    );
    let icmpv6 = |address: &str, kind| {
        let mut flow = to(address, Protocol::Icmpv6, None);
        flow.icmp_type = Some(kind);
        flow
    };
    for (address, kind) in [
        ("ff02::2", 133),
        ("fe80::1", 135),
        ("ff02::1:ff00:1", 135),
        ("ff02::16", 143),
    ] {
        check(icmpv6(address, kind), ok);
    }
    check(
        icmpv6("fe80::1", 128),
        "deny -: no rule matches host fe80::1 (icmpv6)",
    );
    check(
        icmpv6("2001:db8::1", 135),
        "deny -: no rule matches host 2001:db8::1 (icmpv6)",
    );
    check(
        icmpv6("ff0e::1", 135),
        "deny -: no rule matches host ff0e::1 (icmpv6)",
    );
    // A neighbour with a global address asks for the sandbox.
    let mut asked = icmpv6("2001:db8::1", 135);
    asked.src_ip = Some(address("ff02::1:ff00:2"));
    assert_eq!(judged(&mut engine(RULES), IngressFlow(asked)), ok);
}
