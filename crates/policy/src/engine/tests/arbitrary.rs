//! Whatever the guest does, the engine answers, and never by mistake with yes.

use crate::testing::*;
use proptest::prelude::*;
use sandtrace_event::{
    Bytes64, Count, FileKind, FileOp, Flow, FlowPhase, IngressFlow, NameEvidence, NameSource,
    Payload, Protocol, VerdictResult,
};
use std::borrow::Cow;
use std::net::IpAddr;

const RULES: &str = r#"
resolvers: ["2001:db8::53"]
rules:
  - {id: no, type: network_egress, action: deny, destinations: [{host: "**.b.**"}, {cidr: 10.1.0.0/16}]}
  - id: web
    type: network_egress
    destinations: [{host: "*.a", port: 1-30000}, {host: "**", port: 443}, {cidr: "::/0", protocol: udp}]
    max_bytes_per_call: 10
    max_bytes_total: 100
    max_connections: 2
  - {id: claimed, type: network_egress, destinations: [{host: "b.*"}], min_name_evidence: claimed}
  - {id: in, type: network_ingress, sources: [{cidr: 0.0.0.0/0, port: 22}], max_connections: 1}
  - {id: names, type: dns_query, names: ["a.*"]}
  - {id: files, type: filesystem, paths: ["/a/**", "/b/*"], access: read-write, max_file_bytes: 5}
"#;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[abAB.*]{0,8}", 1 => "\\PC{0,12}", 1 => Just("10.1.2.3".to_owned())]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    let known = [
        "10.0.0.53",
        "10.1.2.3",
        "169.254.169.254",
        "2001:db8::53",
        "fe80::1",
    ];
    prop_oneof![
        any::<IpAddr>(),
        prop::sample::select(known.map(address).to_vec())
    ]
}

fn evidence() -> impl Strategy<Value = NameEvidence> {
    let source = prop::sample::select(vec![
        NameSource::Dns,
        NameSource::TlsSni,
        NameSource::HttpHost,
        NameSource::SocksHost,
    ]);
    (name(), source, prop::option::of(ip()), any::<bool>()).prop_map(
        |(name, source, resolver, agrees)| {
            let mut entry = named(source, &name, None);
            (entry.resolver, entry.agrees) = (resolver, agrees);
            entry
        },
    )
}

fn protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::*;
    prop::sample::select(vec![Tcp, Udp, Icmp, Icmpv6, Arp, Ip, Ethernet])
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let ends = (
        prop::option::of(ip()),
        prop::option::of(any::<u16>()),
        prop::option::of(any::<u16>()),
        protocol(),
    );
    let counts = (
        any::<u64>(),
        0..200_u64,
        prop_oneof![Just(0), any::<u64>()],
        0..6_u64,
    );
    let finding = "[a-z_]{0,20}".prop_map(Cow::Owned);
    let findings = prop::collection::vec(finding, 0..2);
    let phase = prop::sample::select(vec![FlowPhase::Open, FlowPhase::Update, FlowPhase::Close]);
    let names = prop::collection::vec(evidence(), 0..5);
    (
        ends,
        counts,
        findings,
        phase,
        names,
        name(),
        prop::option::of(any::<u8>()),
    )
        .prop_map(|(ends, counts, findings, phase, names, host, icmp_type)| {
            let mut flow = flow(1);
            (flow.dst_ip, flow.dst_port, flow.src_port, flow.protocol) = ends;
            flow.max_call_bytes = Count(counts.0);
            flow.bytes_sent = Count(counts.1);
            flow.missed_bytes_sent = Count(counts.2);
            flow.flow_id = Count(counts.3);
            (flow.findings, flow.phase, flow.names, flow.dst_host) = (findings, phase, names, host);
            flow.icmp_type = icmp_type;
            flow
        })
}

fn any_change() -> impl Strategy<Value = Payload> {
    use FileOp::*;
    let path = prop_oneof!["(/[ab.]{0,2}){0,4}", "\\PC{0,10}"];
    let op = prop::sample::select(vec![Created, Modified, Deleted, Renamed, Metadata]);
    let kind = prop::sample::select(vec![FileKind::File, FileKind::Dir, FileKind::Unknown]);
    let exact = prop::option::of(prop::collection::vec(any::<u8>(), 0..8));
    let from = prop::option::of("(/[ab]{0,2}){0,3}");
    (path, op, kind, exact, from, prop::option::of(any::<u64>())).prop_map(
        |(path, op, kind, exact, from, size)| {
            let mut change = change(op, &path);
            (change.kind, change.renamed_from) = (kind, from);
            change.path_b64 = exact.map(Bytes64);
            change.size_after = size.map(Count);
            change.into()
        },
    )
}

fn any_payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        3 => any_flow().prop_map(Payload::from),
        1 => any_flow().prop_map(|flow| IngressFlow(flow).into()),
        1 => (name(), ip()).prop_map(|(name, resolver)| query(&name, &resolver.to_string()).into()),
        2 => any_change(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_event_gets_a_verdict_that_a_terminal_can_show(payloads in prop::collection::vec(any_payload(), 1..8)) {
        let mut engine = engine(RULES);
        for payload in payloads {
            let verdict = engine.judge(&observed(payload)).verdict.unwrap();
            prop_assert!(!verdict.reason.chars().any(char::is_control));
            prop_assert!(verdict.reason.len() < 16_384);
            prop_assert!(verdict.result == VerdictResult::Deny || verdict.policy_rule.is_some());
        }
    }

    #[test]
    fn more_bytes_never_turn_a_no_into_a_yes(flow in any_flow(), more in 1..u64::MAX / 2) {
        let allowed = |flow: &Flow| {
            let verdict = engine(RULES).judge(&observed(flow.clone())).verdict.unwrap();
            verdict.result == VerdictResult::Allow
        };
        let before = allowed(&flow);
        let mut larger = flow.clone();
        larger.bytes_sent.0 = larger.bytes_sent.0.saturating_add(more);
        larger.max_call_bytes.0 = larger.max_call_bytes.0.saturating_add(more);
        larger.missed_bytes_sent.0 = larger.missed_bytes_sent.0.saturating_add(more);
        prop_assert!(before || !allowed(&larger));
    }

    #[test]
    fn without_an_accepted_answer_no_name_allows(mut flow in any_flow()) {
        // Only rules by name, none of which takes the client's word alone.
        let mut engine = engine(
            "rules: [{id: all, type: network_egress, destinations: [{host: \"**\"}], min_name_evidence: dns}]",
        );
        for entry in &mut flow.names {
            entry.agrees = false;
            entry.resolver = entry.resolver.filter(|resolver| *resolver != address(RESOLVER));
        }
        let verdict = verdict(&mut engine, flow);
        let builtin = verdict.policy_rule.is_some_and(|rule| rule.starts_with("builtin:"));
        prop_assert!(builtin || verdict.result != VerdictResult::Allow, "{}", verdict.reason);
    }

    #[test]
    fn the_same_events_get_the_same_verdicts(payloads in prop::collection::vec(any_payload(), 1..12)) {
        let judge = || -> Vec<_> {
            let mut engine = engine(RULES);
            payloads.iter().map(|payload| engine.judge(&observed(payload.clone()))).collect()
        };
        prop_assert_eq!(judge(), judge());
    }
}
