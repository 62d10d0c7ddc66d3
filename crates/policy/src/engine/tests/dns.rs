//! Verdicts on DNS questions.

use crate::testing::*;

const RULES: &str = r#"
rules:
  - {id: no-dyn, type: dns_query, action: deny, names: ["**.dyn.example"]}
  - {id: no-evil, type: network_egress, action: deny, destinations: [{host: "*.evil.example"}, {host: half.example, port: 22}]}
  - {id: web, type: network_egress, destinations: [{host: "**.example", port: 443}]}
  - {id: search, type: dns_query, names: ["*.lan"]}
"#;

#[track_caller]
fn check(name: &str, resolver: &str, expected: &str) {
    assert_eq!(judged(&mut engine(RULES), query(name, resolver)), expected);
}

#[test]
fn names_that_a_rule_mentions_may_be_looked_up() {
    check(
        "a.example",
        RESOLVER,
        "allow web: host a.example is one that the rule names",
    );
    check(
        "db.lan",
        RESOLVER,
        "allow search: host db.lan is one that the rule names",
    );
    check(
        "half.example",
        RESOLVER,
        "allow web: host half.example is one that the rule names",
    );
    check(
        "x.dyn.example",
        RESOLVER,
        "deny no-dyn: the rule denies host x.dyn.example",
    );
    check(
        "x.evil.example",
        RESOLVER,
        "deny no-evil: the rule denies host x.evil.example",
    );
    check("a.test", RESOLVER, "deny -: no rule names host a.test");
    check("", RESOLVER, "deny -: no rule names host ");
}

#[test]
fn only_accepted_resolvers_may_be_asked() {
    check(
        "a.example",
        "8.8.8.8",
        "deny -: resolver 8.8.8.8 is not an accepted one (asked for a.example)",
    );
    check(
        "a.example",
        "::ffff:10.0.0.53",
        "allow web: host a.example is one that the rule names",
    );
    let mut engine = engine("resolvers: [8.8.8.8]\ndefaults: {network: allow}");
    assert_eq!(
        judged(&mut engine, query("a.example", "8.8.8.8")),
        "allow default:network: the policy has no rule for looking up a.example"
    );
}

#[test]
fn an_answer_that_nobody_asked_for_is_an_anomaly() {
    let mut query = query("a.example", RESOLVER);
    query.matched = false;
    assert_eq!(
        judged(&mut engine(RULES), query.clone()),
        "anomaly web: an answer for a.example from 10.0.0.53 that nobody asked for"
    );
    // A question to which no answer came.
    (query.rcode, query.answers) = (None, Vec::new());
    assert_eq!(
        judged(&mut engine(RULES), query),
        "allow web: host a.example is one that the rule names"
    );
}

#[test]
fn an_accepted_resolver_is_one_at_its_port_alone() {
    let mut engine =
        engine("rules: [{id: a, type: network_egress, destinations: [{host: a.example}]}]\n");
    let mut asked = query("a.example", RESOLVER);
    asked.resolver_port = 5300;
    assert_eq!(
        judged(&mut engine, asked),
        format!("deny -: resolver {RESOLVER}:5300 is not an accepted one (asked for a.example)")
    );
}

/// Of too many questions the names are left out: nothing may allow those.
#[test]
fn questions_without_a_name_are_allowed_by_no_rule() {
    let rules = "rules: [{id: all, type: dns_query, names: [\"**\"]}]";
    let mut many = query(".", RESOLVER);
    many.questions = Some(sandtrace_event::Count(1000));
    let verdict = judged(&mut engine(rules), many);
    assert!(verdict.starts_with("deny"), "{verdict}");
}
