//! Verdicts on conversations.

use crate::testing::*;
use sandtrace_event::Protocol;

const RULES: &str = r#"
rules:
  - {id: no-metadata, type: network_egress, action: deny, destinations: [{cidr: 169.254.0.0/16}]}
  - {id: no-evil, type: network_egress, action: deny, destinations: [{host: "**.evil.example"}]}
  - {id: stripe, type: network_egress, destinations: [{host: "*.stripe.com", port: 443}]}
  - {id: lan, type: network_egress, destinations: [{cidr: 10.0.0.0/8, port: [22, 8000-8100], protocol: tcp}]}
  - {id: ssh, type: network_ingress, sources: [{cidr: 192.0.2.0/24, port: 22}]}
  - {id: no-scan, type: network_ingress, action: deny, sources: [{host: 203.0.113.9}]}
"#;

#[track_caller]
fn check(payload: impl Into<sandtrace_event::Payload>, expected: &str) {
    assert_eq!(judged(&mut engine(RULES), payload), expected);
}

fn to(address_text: &str, port: u16) -> sandtrace_event::Flow {
    let mut flow = flow(port);
    flow.dst_ip = Some(address(address_text));
    flow.dst_host = address_text.to_owned();
    flow
}

#[test]
fn the_first_rule_that_matches_decides() {
    check(
        https("api.stripe.com"),
        "allow stripe: api.stripe.com:443, named by the client and by DNS",
    );
    check(
        https("API.Stripe.Com."),
        "allow stripe: api.stripe.com:443, named by the client and by DNS",
    );
    check(
        https("a.evil.example"),
        "deny no-evil: the rule denies a.evil.example:443",
    );
    check(
        https("evilstripe.com"),
        "deny -: no rule matches host evilstripe.com:443",
    );
    check(
        https("a.b.stripe.com"),
        "deny -: no rule matches host a.b.stripe.com:443",
    );
    check(
        with_names(
            flow(80),
            &[("dns", "api.stripe.com"), ("host", "api.stripe.com")],
        ),
        "deny -: no rule matches host api.stripe.com:80",
    );
}

#[test]
fn addresses_need_no_names() {
    check(
        to("10.1.2.3", 8080),
        "allow lan: 10.1.2.3:8080, allowed by address",
    );
    check(
        to("::ffff:10.1.2.3", 22),
        "allow lan: 10.1.2.3:22, allowed by address",
    );
    check(
        to("10.1.2.3", 8101),
        "deny -: no rule matches host 10.1.2.3:8101",
    );
    check(
        to("2001:db8::1", 443),
        "deny -: no rule matches host [2001:db8::1]:443",
    );
    let mut udp = to("10.1.2.3", 22);
    udp.protocol = Protocol::Udp;
    check(udp, "deny -: no rule matches host 10.1.2.3:22");
    // A name that would be allowed does not help a denied address.
    let mut flow = https("api.stripe.com");
    flow.dst_ip = Some(address("169.254.169.254"));
    check(
        flow,
        "deny no-metadata: the rule denies 169.254.169.254:443",
    );
}

#[test]
fn protocols_without_ports_match_only_rules_without() {
    let mut ping = to("10.1.2.3", 1);
    (ping.dst_port, ping.protocol) = (None, Protocol::Icmp);
    check(ping.clone(), "deny -: no rule matches host 10.1.2.3 (icmp)");
    let mut any =
        engine("rules: [{id: any, type: network_egress, destinations: [{cidr: 10.0.0.0/8}]}]");
    assert_eq!(
        judged(&mut any, ping),
        "allow any: 10.1.2.3 (icmp), allowed by address"
    );
    let mut frame = flow(1);
    frame.protocol = Protocol::Ethernet;
    (frame.dst_ip, frame.dst_port, frame.ether_type) = (None, None, Some(0x88cc));
    frame.dst_host = "(not IP)".to_owned();
    check(
        frame,
        "deny -: no rule matches host (not IP) (EtherType 0x88cc)",
    );
}

#[test]
fn from_outside_the_sandboxs_port_counts() {
    check(
        ingress("192.0.2.7", 22),
        "allow ssh: 192.0.2.7 to port 22, allowed by address",
    );
    check(
        ingress("192.0.2.7", 80),
        "deny -: no rule matches 192.0.2.7 to port 80",
    );
    check(
        ingress("203.0.113.9", 22),
        "deny no-scan: the rule denies 203.0.113.9 to port 22",
    );
}

#[test]
fn defaults_hold_where_there_is_no_rule_of_a_type() {
    let table = [
        (
            "deny",
            "deny -: the policy has no rule for traffic to a.example:443",
        ),
        (
            "anomaly",
            "anomaly default:network: the policy has no rule for traffic to a.example:443",
        ),
        (
            "allow",
            "allow default:network: the policy has no rule for traffic to a.example:443",
        ),
    ];
    for (word, expected) in table {
        let mut engine = engine(&format!("defaults: {{network: {word}}}"));
        assert_eq!(judged(&mut engine, https("a.example")), expected);
    }
    let mut rules = engine(
        "defaults: {network: allow}\nrules: [{id: a, type: network_egress, destinations: [{host: b.example}]}]",
    );
    assert_eq!(
        judged(&mut rules, https("a.example")),
        "deny -: no rule matches host a.example:443"
    );
    assert_eq!(
        judged(&mut rules, ingress("192.0.2.1", 22)),
        "allow default:network: the policy has no rule for traffic from outside, 192.0.2.1 to port 22"
    );
}

#[test]
fn control_records_have_no_verdict() {
    let payload = sandtrace_event::SandboxDetached {
        reason: sandtrace_event::DetachReason::Interrupted,
    };
    assert_eq!(engine(RULES).judge(&observed(payload)).verdict, None);
}

#[test]
fn names_lead_to_private_addresses_unless_the_manifest_says_no() {
    let near = |finding: &str, to: &str, port| {
        let mut flow = https("api.stripe.com");
        flow.dst_ip = Some(address(to));
        flow.dst_port = Some(port);
        flow.findings = vec![finding.to_owned().into()];
        flow
    };
    let findings = ["private_address", "host_address"];
    for finding in findings {
        let verdict = judged(&mut engine(RULES), near(finding, "10.0.0.9", 443));
        assert!(verdict.starts_with("allow stripe"), "{verdict}");
        let strict = format!("{RULES}defaults: {{private_addresses: by-address}}\n");
        let verdict = judged(&mut engine(&strict), near(finding, "10.0.0.9", 443));
        assert!(verdict.starts_with("anomaly stripe"), "{verdict}");
        assert!(verdict.contains("a rule must give it as cidr"), "{verdict}");
        // A rule by address says that it is meant.
        let verdict = judged(&mut engine(&strict), near(finding, "10.0.0.9", 22));
        assert!(verdict.starts_with("allow lan"), "{verdict}");
    }
}
