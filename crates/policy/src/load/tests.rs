//! Manifests that load, and the errors of those that do not.

use crate::testing::{SEED, policy};
use crate::{MAX_MANIFEST_BYTES, Policy};

#[track_caller]
fn errors(text: &str) -> String {
    Policy::parse("policy.yaml", text.as_bytes())
        .unwrap_err()
        .to_string()
}

/// Errors of a manifest of which only the rules are given.
#[track_caller]
fn check(rules: &str, expected: &str) {
    let text = format!("schema_version: \"1.0\"\nrules:\n{rules}");
    assert_eq!(errors(&text), expected, "{text}");
}

/// Errors of one egress rule of which only a line is given.
#[track_caller]
fn check_line(line: &str, expected: &str) {
    let rule = "  - id: a\n    type: network_egress\n    destinations: [{host: a.example}]\n";
    check(&format!("{rule}    {line}\n"), expected);
}

/// Errors of one destination.
#[track_caller]
fn check_destination(destination: &str, expected: &str) {
    let rule = "  - id: a\n    type: network_egress\n    destinations:\n";
    check(&format!("{rule}      - {destination}\n"), expected);
}

/// Errors of one path.
#[track_caller]
fn check_path(path: &str, expected: &str) {
    check(
        &format!("  - id: a\n    type: filesystem\n    paths:\n      - {path}\n"),
        expected,
    );
}

#[test]
fn the_seeds_manifest_loads_as_it_stands() {
    let policy = policy(SEED);
    let rules: Vec<_> = policy.rules().map(|rule| rule.to_string()).collect();
    assert_eq!(
        rules,
        [
            "tool:stripe_charge (network_egress): allow api.stripe.com port 443; at most 4,096 B a call",
            "tool:read_file (filesystem): allow /home/agent/**, /tmp/**",
        ]
    );
    assert!(policy.resolvers().is_empty());
}

#[test]
fn every_key_loads() {
    let policy = policy(
        r#"
schema_version: '1.0'
resolvers: [10.0.0.53, "2001:db8::53"]
defaults: {network: deny, filesystem: anomaly, min_name_evidence: dns, private_addresses: by-address, ech: anomaly}
rules:
  - id: no-metadata
    type: network_egress
    action: deny
    destinations: [{cidr: 169.254.0.0/16}, {host: "**.internal", protocol: tcp}]
  - id: web
    type: network_egress
    action: allow
    destinations:
      - {host: "*.Stripe.com.", port: [443, "8000-8100"]}
      - {host: 192.0.2.1, port: "22"}
      - {cidr: "2001:db8::/32", protocol: icmpv6}
    max_bytes_per_call: 0
    max_bytes_total: 9007199254740991
    max_connections: 3
    min_name_evidence: claimed
  - id: ssh
    type: network_ingress
    sources: [{cidr: 10.0.0.0/8, port: 22, protocol: tcp}]
    max_connections: 1
  - {id: search-domain, type: dns_query, names: ["*.lan"]}
  - {id: logs, type: filesystem, paths: [/var/log/**], access: read-write, max_file_bytes: 1048576}
"#,
    );
    assert_eq!(policy.resolvers().len(), 2);
    let rules: Vec<_> = policy.rules().map(|rule| rule.description).collect();
    assert_eq!(
        rules,
        [
            "deny 169.254.0.0/16 any port, **.internal any port/tcp",
            "allow *.stripe.com port 443,8000-8100, 192.0.2.1 port 22, 2001:db8::/32 icmpv6; \
             at most 0 B a call; at most 9,007,199,254,740,991 B a connection; \
             at most 3 connections at a time; names at least claimed",
            "allow from 10.0.0.0/8 port 22/tcp; at most 1 connections at a time",
            "allow *.lan",
            "allow /var/log/**; read-write; at most 1,048,576 B a file",
        ]
    );
}

#[test]
fn the_head_is_checked() {
    let table = [
        ("", "policy.yaml:1:1: the manifest is empty"),
        (
            "- a",
            "policy.yaml:1:1: the manifest must be a mapping, not a list",
        ),
        (
            "schema_version: 1.0\ndefaults: {network: allow}\n",
            "policy.yaml:1:17: schema_version must be a string, not a number (write \"1.0\" in quotes)",
        ),
        (
            "schema_version: \"2.0\"\ndefaults: {network: allow}\n",
            "policy.yaml:1:17: unknown schema_version \"2.0\" (this program reads \"1.0\")",
        ),
        (
            "defaults: {network: deny}\n",
            "policy.yaml:1:1: the manifest lacks the key \"schema_version\"",
        ),
        (
            "schema_version: \"1.0\"\n",
            "policy.yaml:1:1: the manifest lacks the key \"rules\"",
        ),
        (
            "schema_version: \"1.0\"\nrule: []\n",
            "policy.yaml:2:1: unknown key \"rule\" (did you mean \"rules\"?)",
        ),
        (
            "schema_version: \"1.0\"\nrules: []\n",
            "policy.yaml:2:8: rules is an empty list (add an item or remove the key)",
        ),
        (
            "schema_version: \"1.0\"\nrules:\n",
            "policy.yaml:2:6: rules must be a list, not nothing (begin each item with `- `)",
        ),
        (
            "schema_version: \"1.0\"\ndefaults: {network: alow}\n",
            "policy.yaml:2:21: network cannot be \"alow\" (did you mean \"allow\"?)",
        ),
        (
            "schema_version: \"1.0\"\ndefaults: {}\nresolvers: [ns.example, 10.0.0.1, 10.0.0.1]\n",
            "policy.yaml:3:13: \"ns.example\" is not an IP address \
             (write an address such as 192.0.2.53, without a port)\n\
             policy.yaml:3:35: resolver 10.0.0.1 is given twice",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(errors(text), expected, "{text}");
    }
    let large = vec![b'#'; MAX_MANIFEST_BYTES + 1];
    assert!(Policy::parse("p", &large).is_err());
}

#[test]
fn rules_are_checked() {
    check(
        "  - x\n",
        "policy.yaml:3:5: a rule must be a mapping, not a string",
    );
    check(
        "  - {id: a, type: network_egress, destination: [{host: a.example}]}\n",
        "policy.yaml:3:35: unknown key \"destination\" (did you mean \"destinations\"?)",
    );
    check(
        "  - {id: a, type: syscall_activity, allow: [read]}\n",
        "policy.yaml:3:19: type cannot be \"syscall_activity\" (use network_egress, \
         network_ingress, filesystem, dns_query or syscall)",
    );
    check(
        "  - {id: a, type: syscall}\n",
        "policy.yaml:3:5: a syscall rule needs one of the keys allow, deny, profile and accept \
         (such as `profile: firecracker`)",
    );
    check(
        "  - {id: a, type: syscall, deny: [Read]}\n",
        "policy.yaml:3:35: \"Read\" is no name of a system call or thread group (such as openat or vcpu)",
    );
    check(
        "  - {id: a, type: syscall, profile: firecraker}\n",
        "policy.yaml:3:37: profile cannot be \"firecraker\" (did you mean \"firecracker\"?)",
    );
    check(
        "  - {id: a, type: network_egres, destinations: []}\n",
        "policy.yaml:3:19: type cannot be \"network_egres\" (did you mean \"network_egress\"?)",
    );
    check(
        "  - {type: filesystem, paths: [/a]}\n",
        "policy.yaml:3:5: a rule lacks the key \"id\"",
    );
    check(
        "  - {id: 12, type: filesystem, paths: [/a]}\n",
        "policy.yaml:3:10: id must be a string, not a number (write \"12\" in quotes)",
    );
    check(
        "  - {id: \"builtin:x\", type: filesystem, paths: [/a]}\n",
        "policy.yaml:3:10: ids that begin with \"builtin:\" are Sandtrace's own (choose another prefix)",
    );
    check(
        "  - {id: a, type: filesystem, paths: [/a]}\n  - {id: a, type: filesystem, paths: [/b]}\n",
        "policy.yaml:4:10: rule id \"a\" is given twice (first in line 3)",
    );
    check(
        "  - {id: a, type: filesystem, paths: []}\n",
        "policy.yaml:3:38: paths is an empty list (add an item or remove the key)",
    );
    check(
        "  - {id: a, action: deny, type: network_egress, destinations: [{cidr: 10.0.0.0/8}], max_connections: 1}\n",
        "policy.yaml:3:85: key \"max_connections\" does not belong here \
         (a deny rule denies all that it matches; limits belong to allow rules)",
    );
    check(
        "  - {id: a, type: network_ingress, destinations: [{cidr: 10.0.0.0/8}]}\n",
        "policy.yaml:3:36: key \"destinations\" does not belong here (did you mean \"sources\"?)",
    );
    check(
        "  - {id: a, type: network_ingress, sources: [{host: a.example}]}\n",
        "policy.yaml:3:53: a source is an address: what a peer calls itself proves nothing (use `cidr:`)",
    );
}

#[test]
fn several_errors_are_shown_at_once() {
    check(
        "  - {id: a, type: filesystem, paths: [a], acces: full}\n  - {id: b, typ: filesystem, paths: [/b]}\n",
        "policy.yaml:3:39: not an absolute path: \"a\" (write \"/a\")\n\
         policy.yaml:3:43: unknown key \"acces\" (did you mean \"access\"?)\n\
         policy.yaml:4:13: unknown key \"typ\" (did you mean \"type\"?)",
    );
}

#[test]
fn numbers_are_checked() {
    check_line(
        "max_bytes_per_call: 4 KiB",
        "policy.yaml:6:25: max_bytes_per_call must be a whole number, not \"4 KiB\" \
         (digits alone, without a sign, a point or a unit)",
    );
    check_line(
        "max_bytes_total: -1",
        "policy.yaml:6:22: max_bytes_total must be a whole number, not \"-1\" \
         (digits alone, without a sign, a point or a unit)",
    );
    check_line(
        "max_bytes_total: 9007199254740992",
        "policy.yaml:6:22: max_bytes_total 9007199254740992 is out of range (0 to 9007199254740991)",
    );
    check_line(
        "max_connections: 0",
        "policy.yaml:6:22: max_connections 0 is out of range (1 to 65536)",
    );
    check_line(
        "max_connections: \"3\"",
        "policy.yaml:6:22: max_connections must be a number, not a string (write 3 without quotes)",
    );
    check_line(
        "max_bytes: 1",
        "policy.yaml:6:5: unknown key \"max_bytes\" (use id, action, type, destinations, max_bytes_per_call, min_name_evidence, max_bytes_total or max_connections)",
    );
    check_line(
        "min_name_evidence: sni",
        "policy.yaml:6:24: min_name_evidence cannot be \"sni\" (use claimed, dns or consistent)",
    );
}

#[test]
fn destinations_are_checked() {
    const PORT: &str =
        "(a number from 1 to 65535, a range such as \"8000-8100\", or a list of both)";
    let port = |text: &str| format!("policy.yaml:6:32: port {text} is out of range {PORT}");
    check_destination(
        "{host: a.example, port: 0   }",
        &port("\"0\"").replace(":32", ":33"),
    );
    check_destination(
        "{host: a.example, port: 65536}",
        &port("\"65536\"").replace(":32", ":33"),
    );
    check_destination(
        "{host: a.example, port: 443x}",
        &port("\"443x\"").replace(":32", ":33"),
    );
    check_destination(
        "{host: a.example, port: [80, 9-8]}",
        "policy.yaml:6:38: port range \"9-8\" runs backwards (write \"8-9\")",
    );
    check_destination(
        "{host: a.example, prot: 443}",
        "policy.yaml:6:27: unknown key \"prot\" (did you mean \"port\"?)",
    );
    check_destination(
        "{host: \"api.stripe.com:443\"}",
        "policy.yaml:6:16: not a host name: \"api.stripe.com:443\" (write host: api.stripe.com and port: 443)",
    );
    check_destination(
        "{cidr: 10.0.0.1/8}",
        "policy.yaml:6:16: bits beyond the prefix are set: \"10.0.0.1/8\" (write 10.0.0.0/8)",
    );
    check_destination(
        "{cidr: 10.0.0.1}",
        "policy.yaml:6:16: a cidr without prefix length: \"10.0.0.1\" (write 10.0.0.1/32)",
    );
    check_destination(
        "{cidr: 10.0.0.0/33}",
        "policy.yaml:6:16: prefix length out of range: \"10.0.0.0/33\" (0 to 32)",
    );
    check_destination(
        "{port: 443}",
        "policy.yaml:6:9: a destination lacks the key \"host\" or \"cidr\" \
         (`host: \"**\"` for any named host, `cidr: 0.0.0.0/0` for any address)",
    );
    check_destination(
        "{host: a.example, port: 7, protocol: icmp}",
        "policy.yaml:6:33: icmp has no ports (remove the port)",
    );
}

#[test]
fn paths_are_checked() {
    check_path(
        "/home/../etc",
        "policy.yaml:6:9: `.` and `..` are not allowed in a path pattern: \"/home/../etc\" \
         (write the path as the sandbox sees it)",
    );
    check_path(
        "/tmp/",
        "policy.yaml:6:9: a path pattern does not end with `/`: \"/tmp/\" \
         (write \"/tmp\", or \"/tmp/**\" for what is below)",
    );
    check_path(
        "\"/tmp/{a,b}\"",
        "policy.yaml:6:9: an unknown wildcard: \"/tmp/{a,b}\" \
         (only `*` and `**` are wildcards; write `\\{` for the character itself)",
    );
}

#[test]
fn a_rule_that_could_never_decide_is_an_error() {
    let egress = |id, destination| {
        format!("  - {{id: {id}, type: network_egress, destinations: [{{{destination}}}]}}\n")
    };
    let shadowed = |first, second, place| {
        let expected = "policy.yaml:4:10: rule \"b\" can never decide (\"a\" before it matches all that it matches)";
        let text = egress("a", first) + &egress("b", second);
        match place {
            true => check(&text, expected),
            false => drop(policy(&format!("schema_version: \"1.0\"\nrules:\n{text}"))),
        }
    };
    shadowed("host: a.example", "host: A.example.", true);
    shadowed("host: a.example", "host: a.example, port: 443", true);
    shadowed("host: a.example, port: 443", "host: a.example", false);
    shadowed(
        "host: \"**.example\"",
        "host: \"*.a.example\", protocol: tcp",
        true,
    );
    shadowed("host: \"*.example\"", "host: \"**.example\"", false);
    shadowed(
        "cidr: 10.0.0.0/8, port: 1-100",
        "host: 10.1.2.3, port: [5, 6-7]",
        true,
    );
    shadowed("cidr: 10.0.0.0/8", "host: \"**\"", false);
    shadowed("host: a.example, protocol: tcp", "host: a.example", false);
    let paths = |first, second| {
        format!(
            "  - {{id: a, type: filesystem, paths: [{first}]}}\n  - {{id: b, action: deny, type: filesystem, paths: [{second}]}}\n"
        )
    };
    check(
        &paths("/a/**, /b", "/a/x, /b"),
        "policy.yaml:4:10: rule \"b\" can never decide (\"a\" before it matches all that it matches)",
    );
    drop(policy(&format!(
        "schema_version: \"1.0\"\nrules:\n{}",
        paths("/a/**", "/a/x, /b")
    )));
}

#[test]
fn long_lists_of_errors_are_counted() {
    let rules = "  - x\n".repeat(25);
    let text = errors(&format!("schema_version: \"1.0\"\nrules:\n{rules}"));
    assert_eq!(text.lines().count(), 21);
    assert!(text.ends_with("\nand 5 more"));
}
