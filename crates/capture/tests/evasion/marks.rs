//! What is told of conversations that cannot be read, or that carry what they should not.

use crate::frames::{datagram, dns, hello, hello_with, segment};
use crate::tap::{Ground, RESOLVER, Seen};
use sandtrace_event::DnsQuery;

const PEER: [u8; 4] = [198, 51, 100, 7];
/// A public service of DNS over HTTPS that is asked without a name.
const SERVICE: [u8; 4] = [1, 1, 1, 1];

/// The guest begins connections: to whom, and what it says first.
fn connect(ground: &Ground, to: [u8; 4], port: u16, first: &[u8]) {
    let ports = (40_000, port);
    ground.send(&segment(to, ports, 999, "S", &[]));
    if !first.is_empty() {
        ground.send(&segment(to, ports, 1000, "PA", first));
    }
}

#[track_caller]
fn check(seen: &Seen, port: u16, finding: &str, told: bool) {
    let flow = seen.to_port(port);
    let found = flow.findings.iter().any(|it| it == finding);
    assert_eq!(found, told, "{finding}: {flow:#?}");
}

#[test]
fn dns_that_cannot_be_read_is_marked() {
    let Some(ground) = Ground::new("marks") else {
        return;
    };
    let watched = ground.watch();
    let alpn = |protocol: &str| {
        let name = [&[protocol.len() as u8], protocol.as_bytes()].concat();
        let list = [&(name.len() as u16).to_be_bytes()[..], &name].concat();
        hello_with("resolver.example", 10, &[(16, &list)])
    };
    connect(&ground, PEER, 853, &[]);
    connect(&ground, PEER, 8530, &alpn("dot"));
    connect(&ground, PEER, 8531, &alpn("h2"));
    ground.send(&datagram(PEER, (1, 8530), b"no DNS"));
    let seen = watched.finish();
    for (port, told) in [(853, true), (8531, false)] {
        check(&seen, port, "dns_over_tls", told);
    }
    let flows = seen.flows();
    let to = |port| flows.iter().filter(move |flow| flow.dst_port == Some(port));
    let marked = to(8530).filter(|flow| flow.findings.iter().any(|it| it == "dns_over_tls"));
    assert_eq!((to(8530).count(), marked.count()), (2, 1));

    let watched = ground.watch();
    ground.send(&datagram(PEER, (1, 853), b"something"));
    let seen = watched.finish();
    check(&seen, 853, "dns_over_quic", true);
    check(&seen, 853, "dns_over_tls", false);
}

#[test]
fn dns_over_https_is_known_by_who_is_asked_and_for_what() {
    let request = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    for (number, (to, port, first, told)) in [
        (PEER, 443, hello("dns.google", 10), true),
        (PEER, 443, hello("x.dns.google", 10), true),
        (PEER, 443, hello("notdns.google", 10), false),
        (PEER, 443, hello("dns.google.example", 10), false),
        (PEER, 8443, hello("dns.google", 10), true),
        (PEER, 8444, hello("dns.google", 10), false),
        (SERVICE, 443, hello("anything.example", 10), true),
        (SERVICE, 80, request("/").into_bytes(), false),
        (PEER, 80, request("/dns-query").into_bytes(), true),
        (PEER, 80, request("/dns").into_bytes(), false),
    ]
    .into_iter()
    .enumerate()
    {
        let Some(ground) = Ground::new(&format!("doh{number}")) else {
            return;
        };
        let watched = ground.watch();
        connect(&ground, to, port, &first);
        check(&watched.finish(), port, "dns_over_https", told);
    }
}

#[test]
fn what_is_no_dns_and_what_is_a_tunnel_through_it_are_told() {
    let Some(ground) = Ground::new("tunnel") else {
        return;
    };
    let watched = ground.watch();
    ground.send(&datagram(RESOLVER, (5000, 53), b"is this a question?"));
    let asks = |port, name: &str, id| {
        ground.send(&datagram(RESOLVER, (port, 53), &dns(id, name, None)));
    };
    for number in 0..40_u16 {
        asks(5001, &format!("host-{number}.cdn.example"), number);
        // A label that is longer than people's are.
        let data = format!("{number:045x}");
        asks(5002, &format!("{data}.evil.example"), number);
    }
    let seen = watched.finish();
    let from = |port| {
        let flows = seen.flows().into_iter();
        let mut found = flows.filter(move |flow| flow.src_port == Some(port));
        found.next().unwrap()
    };
    assert_eq!(from(5000).findings, ["dns_malformed"]);
    assert_eq!(from(5001).findings, [""; 0]);
    assert_eq!(from(5002).findings, ["dns_tunnelling"]);
    let marked = |it: &&&DnsQuery| it.findings.iter().any(|it| it == "dns_tunnelling");
    let questions = seen.questions();
    let (of_tunnel, others): (Vec<_>, Vec<_>) = questions
        .iter()
        .partition(|it| it.name.ends_with("evil.example"));
    assert_eq!((of_tunnel.len(), others.len()), (40, 40));
    // Ten of them may be an accident.
    assert_eq!(of_tunnel.iter().filter(marked).count(), 31);
    assert_eq!(others.iter().filter(marked).count(), 0);
}

#[test]
fn data_in_repeats_and_in_handshakes_is_told() {
    let Some(ground) = Ground::new("repeats") else {
        return;
    };
    let watched = ground.watch();
    // The same numbers over and over, each time with room for something else.
    for (port, times) in [(9001, 30), (9002, 3)] {
        connect(&ground, PEER, port, &[]);
        for _ in 0..times {
            ground.send(&segment(PEER, (40_000, port), 1000, "PA", &[7; 1400]));
        }
    }
    // Handshake records without an end.
    for (port, records) in [(9003, 20), (9004, 2)] {
        let record = [&[22, 3, 3][..], &1000_u16.to_be_bytes(), &[0; 1000]].concat();
        let first = hello("big.example", 10);
        connect(&ground, PEER, port, &first);
        let mut seq = 1000 + first.len() as u32;
        for _ in 0..records {
            ground.send(&segment(PEER, (40_000, port), seq, "PA", &record));
            seq += record.len() as u32;
        }
    }
    let seen = watched.finish();
    check(&seen, 9001, "excess_retransmission", true);
    check(&seen, 9002, "excess_retransmission", false);
    check(&seen, 9003, "oversized_handshake", true);
    check(&seen, 9004, "oversized_handshake", false);
}
