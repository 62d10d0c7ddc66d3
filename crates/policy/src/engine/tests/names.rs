//! What evidence for a name is worth.

use crate::testing::*;
use sandtrace_event::{Count, Flow, FlowPhase};

#[track_caller]
fn check(minimum: &str, flow: Flow, expected: &str) {
    let mut engine = engine(&format!(
        "rules:\n\
         - {{id: no, type: network_egress, action: deny, destinations: [{{host: no.example}}]}}\n\
         - {{id: a, type: network_egress, destinations: [{{host: a.example}}], min_name_evidence: {minimum}}}\n\
         - {{id: all, type: network_egress, destinations: [{{host: \"**\"}}], min_name_evidence: claimed}}\n"
    ));
    assert_eq!(judged(&mut engine, flow), expected);
}

fn names(names: &[(&str, &str)]) -> Flow {
    with_names(flow(443), names)
}

const WEAK_CLAIM: &str = "anomaly a: the client names a.example, but no accepted resolver's answer for this address agrees";
const WEAK_DNS: &str = "anomaly a: DNS calls this address a.example, but the client does not; \
                        where its protocol names no host, set min_name_evidence: dns";
const FOREIGN: &str = "anomaly a: only a resolver that is not accepted calls this address a.example; \
                       list it under `resolvers:` if its word counts";

#[test]
fn a_name_allows_as_far_as_it_is_proven() {
    let both = [("dns", "a.example"), ("sni", "a.example")];
    let ok = "allow a: a.example:443, named by the client and by DNS";
    for minimum in ["claimed", "dns", "consistent"] {
        check(minimum, names(&both), ok);
    }
    let claim = [("sni", "a.example")];
    check(
        "claimed",
        names(&claim),
        "allow a: a.example:443, named by the client",
    );
    check("dns", names(&claim), WEAK_CLAIM);
    check("consistent", names(&claim), WEAK_CLAIM);
    let dns = [("dns", "a.example")];
    check(
        "claimed",
        names(&dns),
        "allow a: a.example:443, named by DNS",
    );
    check("dns", names(&dns), "allow a: a.example:443, named by DNS");
    check("consistent", names(&dns), WEAK_DNS);
    let foreign = [("foreign", "a.example")];
    for minimum in ["claimed", "dns", "consistent"] {
        check(minimum, names(&foreign), FOREIGN);
    }
    // The word of a resolver that is not accepted backs no claim.
    check(
        "consistent",
        names(&[("foreign", "a.example"), ("sni", "a.example")]),
        WEAK_CLAIM,
    );
}

#[test]
fn a_recorded_agreement_counts_where_the_answer_is_no_longer_listed() {
    let mut flow = names(&[("sni", "a.example")]);
    flow.names[0].agrees = true;
    check(
        "consistent",
        flow.clone(),
        "allow a: a.example:443, named by the client and by DNS",
    );
    // Here the answer is listed, and this policy does not accept who gave it.
    flow.names.push(named(
        sandtrace_event::NameSource::Dns,
        "a.example",
        Some("8.8.8.8"),
    ));
    flow.names[1].resolver_accepted = Some(true);
    check("consistent", flow, WEAK_CLAIM);
}

#[test]
fn until_something_is_sent_dns_suffices() {
    let mut flow = names(&[("dns", "a.example")]);
    flow.bytes_sent = Count(0);
    let provisional = "allow a: a.example:443, named by DNS; provisional while nothing is sent";
    check("consistent", flow.clone(), provisional);
    flow.phase = FlowPhase::Close;
    check("consistent", flow.clone(), provisional);
    flow.missed_bytes_sent = Count(1);
    check("consistent", flow.clone(), WEAK_DNS);
    flow.missed_bytes_sent = Count(0);
    flow.bytes_sent = Count(1);
    check("consistent", flow, WEAK_DNS);
}

#[test]
fn contradictions_are_anomalies() {
    check(
        "consistent",
        names(&[("dns", "a.example"), ("sni", "other.example")]),
        "anomaly a: DNS calls this address a.example, but the client does not; where its protocol names no host, \
         set min_name_evidence: dns; \
         the client names other.example, but for this address DNS answered a.example",
    );
    check(
        "dns",
        names(&[("dns", "a.example"), ("sni", "other.example")]),
        "anomaly a: the client names other.example, but for this address DNS answered a.example",
    );
    check(
        "claimed",
        names(&[("dns", "other.example"), ("sni", "a.example")]),
        "anomaly a: the client names a.example, but for this address DNS answered other.example",
    );
    check(
        "consistent",
        names(&[
            ("dns", "a.example"),
            ("sni", "a.example"),
            ("host", "b.example"),
        ]),
        "anomaly a: the client names two hosts, a.example and b.example; \
         the client names b.example, but for this address DNS answered a.example",
    );
}

#[test]
fn a_proven_claim_outweighs_other_names_of_a_shared_address() {
    check(
        "consistent",
        names(&[
            ("dns", "a.example"),
            ("dns", "b.example"),
            ("sni", "b.example"),
        ]),
        "allow all: b.example:443, named by the client and by DNS",
    );
    check(
        "consistent",
        names(&[
            ("dns", "b.example"),
            ("dns", "a.example"),
            ("sni", "a.example"),
        ]),
        "allow a: a.example:443, named by the client and by DNS",
    );
}

#[test]
fn a_deny_rule_takes_any_evidence() {
    let table = [
        (vec![("sni", "no.example")], ", so named by the client"),
        (vec![("host", "no.example")], ", so named by the client"),
        (vec![("dns", "no.example")], ", so named by DNS"),
        (
            vec![("foreign", "no.example")],
            ", so named by a resolver that is not accepted",
        ),
        (vec![("dns", "no.example"), ("sni", "no.example")], ""),
        (
            vec![
                ("dns", "a.example"),
                ("sni", "a.example"),
                ("dns", "no.example"),
            ],
            ", so named by DNS",
        ),
    ];
    for (evidence, how) in table {
        check(
            "consistent",
            names(&evidence),
            &format!("deny no: the rule denies no.example:443{how}"),
        );
    }
}

#[test]
fn what_is_no_name_is_matched_by_no_pattern() {
    for claim in ["", ".", "a..example", ".a.example", "198.51.100.7", "::1"] {
        check(
            "consistent",
            names(&[("sni", claim)]),
            &match claim {
                "::1" => "deny -: no rule matches host [::1]:443".to_owned(),
                _ => format!("deny -: no rule matches host {claim}:443"),
            },
        );
    }
}

#[test]
fn findings_stand_against_a_rule() {
    let with = |word: &str| {
        let mut flow = https("a.example");
        flow.findings.push(word.to_owned().into());
        flow
    };
    check(
        "consistent",
        with("sni_changed"),
        "anomaly a: the connection named two hosts in its TLS hellos",
    );
    check(
        "consistent",
        with("host_not_in_dns"),
        "anomaly a: the HTTP host is not among the DNS answers for this address",
    );
    check(
        "consistent",
        with("truncated_start"),
        "anomaly a: too little was captured of the packets in which the client may have named a host",
    );
    check(
        "consistent",
        with("from_the_future"),
        "anomaly a: finding from_the_future",
    );
    check(
        "consistent",
        with("dns_unmatched_answer"),
        "allow a: a.example:443, named by the client and by DNS",
    );
    let mut flow = names(&[("sni", "a.example")]);
    flow.findings = vec!["sni_not_in_dns".into(), "host_not_in_dns".into()];
    check(
        "claimed",
        flow,
        "allow a: a.example:443, named by the client",
    );

    let mut by_address = engine(
        "rules:\n- {id: one, type: network_egress, destinations: [{host: 169.254.169.254, port: 80}]}\n\
         - {id: range, type: network_egress, destinations: [{cidr: 169.254.0.0/16}]}\n",
    );
    let mut metadata = with("metadata_address");
    metadata.findings.push("sni_differs_from_host".into());
    metadata.dst_ip = Some(address("169.254.169.254"));
    assert_eq!(
        judged(&mut by_address, metadata.clone()),
        "anomaly range: the address is that of a cloud's metadata service; to allow it, a rule must name it"
    );
    metadata.dst_port = Some(80);
    assert_eq!(
        judged(&mut by_address, metadata),
        "allow one: 169.254.169.254:80, allowed by address"
    );
}

#[test]
fn an_answer_that_is_discounted_backs_no_claim_and_still_denies() {
    for (name, expected) in [
        ("a.example", WEAK_CLAIM),
        (
            "no.example",
            "deny no: the rule denies no.example:443, so named by the client",
        ),
    ] {
        let mut flow = names(&[("dns", name), ("sni", name)]);
        flow.names[0].discounted = true;
        check("consistent", flow, expected);
    }
    let mut flow = names(&[("dns", "no.example")]);
    flow.names[0].discounted = true;
    check(
        "consistent",
        flow,
        "deny no: the rule denies no.example:443, so named by a resolver that is not accepted",
    );
}

#[test]
fn what_dns_said_and_is_forgotten_stands_against_a_rule_where_hosts_are_denied() {
    let rules = "rules:\n\
                 - {id: net, type: network_egress, destinations: [{cidr: 0.0.0.0/0}]}\n";
    let deny =
        "- {id: no, type: network_egress, action: deny, destinations: [{host: no.example}]}\n";
    let mut flow = flow(443);
    flow.findings = vec!["names_forgotten".into()];
    let verdict = judged(&mut engine(rules), flow.clone());
    assert!(verdict.starts_with("allow net"), "{verdict}");
    let verdict = judged(&mut engine(&format!("{rules}{deny}")), flow);
    assert!(
        verdict.starts_with("anomaly net: DNS may have"),
        "{verdict}"
    );
}

#[test]
fn an_encrypted_part_of_the_hello_is_an_anomaly_where_the_manifest_says_so() {
    let rule =
        |peer: &str| format!("rules:\n- {{id: a, type: network_egress, destinations: [{peer}]}}\n");
    let mut flow = names(&[("dns", "a.example"), ("sni", "a.example")]);
    flow.tls = Some(sandtrace_event::TlsFacts {
        ech: true,
        ..Default::default()
    });
    for (peer, defaults, expected) in [
        ("{host: a.example}", "", "allow a"),
        ("{host: a.example}", "defaults: {ech: allow}\n", "allow a"),
        (
            "{host: a.example}",
            "defaults: {ech: anomaly}\n",
            "anomaly a: the TLS hello",
        ),
        ("{cidr: 0.0.0.0/0}", "defaults: {ech: anomaly}\n", "allow a"),
    ] {
        let rules = format!("{}{defaults}", rule(peer));
        let verdict = judged(&mut engine(&rules), flow.clone());
        assert!(verdict.starts_with(expected), "{verdict}");
    }
}
