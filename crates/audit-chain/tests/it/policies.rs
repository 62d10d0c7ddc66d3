//! Trust policies: what is read, what is refused, and which witnesses are enough.

use proptest::prelude::*;
use sandtrace_audit_chain::note::{Algorithm, KeyError, SigningKey, VerifierKey};
use sandtrace_audit_chain::witness::WitnessPolicy;
use sandtrace_audit_chain::witness::policy::PolicyFlaw::{self, *};
use sandtrace_audit_chain::witness::policy::{MAX_ENTRIES, MAX_POLICY};

fn key(name: &str, algorithm: Algorithm, seed: u8) -> VerifierKey {
    let key = SigningKey::new(name, algorithm, &[seed; 32]).unwrap();
    key.verifier().clone()
}

fn log(seed: u8) -> VerifierKey {
    key("example.com/log", Algorithm::Ed25519, seed)
}

fn witness(seed: u8) -> VerifierKey {
    let name = format!("witness.example/{seed}");
    key(&name, Algorithm::CosignatureV1, seed)
}

/// The example of c2sp.org/tlog-policy.
fn example() -> String {
    let mut text = format!("log {}\n\n", log(9));
    for (name, seed) in [("X1", 1), ("X2", 2), ("X3", 3)] {
        text += &format!("witness {name} {}\n", witness(seed));
    }
    text += "group X-witnesses 2 X1 X2 X3\n";
    for (name, seed) in [("Y1", 4), ("Y2", 5), ("Y3", 6)] {
        text += &format!(
            "witness {name} {} https://y.example/{name}\n",
            witness(seed)
        );
    }
    text + "group Y-witnesses any Y1 Y2 Y3\n\
            group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
}

#[track_caller]
fn check_quorum(policy: &WitnessPolicy, seeds: &[u8], expected: bool) {
    let keys: Vec<_> = seeds.iter().map(|&seed| witness(seed)).collect();
    assert_eq!(policy.satisfied_by(&keys), expected, "{seeds:?}");
}

#[test]
fn the_example_of_the_specification() {
    let policy = WitnessPolicy::parse(example()).unwrap();
    assert_eq!(policy.logs()[0].key, log(9));
    assert_eq!(policy.witnesses().len(), 6);
    assert_eq!(policy.witnesses()[3].name, "Y1");
    let url = policy.witnesses()[3].url.as_deref();
    assert_eq!(url, Some("https://y.example/Y1"));
    assert_eq!(policy.witness_keys()[5], witness(6));
    for enough in [
        &[1, 2, 4][..],
        &[2, 3, 6],
        &[1, 2, 3, 4, 5, 6],
        &[4, 3, 1, 77],
    ] {
        check_quorum(&policy, enough, true);
    }
    for few in [
        &[][..],
        &[1, 2],
        &[1, 1, 4],
        &[1, 4, 5, 6],
        &[4, 5, 6],
        &[77, 78, 79],
    ] {
        check_quorum(&policy, few, false);
    }
    // The same public key under another name is another witness.
    let renamed = key("witness.example/x", Algorithm::CosignatureV1, 1);
    assert!(!policy.satisfied_by(&[renamed, witness(2), witness(4)]));
}

#[test]
fn small_policies() {
    let text = format!("\t# nobody\n  witness a {}\t\nquorum   a", witness(1));
    let single = WitnessPolicy::parse(text).unwrap();
    check_quorum(&single, &[1], true);
    check_quorum(&single, &[2], false);
    let none = WitnessPolicy::parse("quorum none\n").unwrap();
    check_quorum(&none, &[], true);
    // Names are bytes, not text.
    let mut bytes = format!(
        "witness \u{212a} {}\nwitness K {}\n",
        witness(1),
        witness(2)
    );
    bytes += "group both all K \u{212a}\nquorum both\n";
    let opaque = WitnessPolicy::parse(bytes).unwrap();
    check_quorum(&opaque, &[1, 2], true);
    check_quorum(&opaque, &[2], false);
    let mut latin = b"witness \xe9 ".to_vec();
    latin.extend(format!("{}\nquorum \u{e9}\n", witness(1)).bytes());
    let refused = WitnessPolicy::parse(latin).unwrap_err();
    assert_eq!(refused.flaw, Undefined("\u{e9}".into()));
}

#[track_caller]
fn check_flaw(text: &str, line: usize, expected: PolicyFlaw) {
    let error = WitnessPolicy::parse(text).unwrap_err();
    assert_eq!((error.line, error.flaw), (line, expected), "{text}");
}

#[test]
fn what_is_refused() {
    let (a, b, l) = (witness(1), witness(2), log(9));
    let ab = format!("witness a {a}\nwitness b {b}\n");
    check_flaw("", 1, NoQuorum);
    check_flaw(&ab, 3, NoQuorum);
    check_flaw("# no\n\nwitnes a b\n", 3, Keyword("witnes".into()));
    check_flaw("quorum none\nquorum none\n", 2, SecondQuorum);
    check_flaw("quorum\n", 1, Form("quorum <name>|none"));
    check_flaw("quorum a b\n", 1, Form("quorum <name>|none"));
    check_flaw("quorum a\n", 1, Undefined("a".into()));
    check_flaw("log\n", 1, Form("log <vkey> [<url>]"));
    check_flaw("witness a\n", 1, Form("witness <name> <vkey> [<url>]"));
    let url = format!("witness a {a} http://a b\n");
    check_flaw(&url, 1, Form("witness <name> <vkey> [<url>]"));
    check_flaw(
        "group g any\n",
        1,
        Form("group <name> all|any|<k> <member>…"),
    );
    check_flaw("group g\n", 1, Form("group <name> all|any|<k> <member>…"));
    check_flaw("group g any a\n", 1, Undefined("a".into()));
    check_flaw(&format!("{ab}group g any g\n"), 3, Undefined("g".into()));
    check_flaw(&format!("{ab}group g any none\n"), 3, ReservedName);
    check_flaw(&format!("{ab}group none any a\n"), 3, ReservedName);
    check_flaw(&format!("witness none {a}\n"), 1, ReservedName);
    for k in ["0", "3", "02", "+1", "-1", "some", "99999999999999999999"] {
        let text = format!("{ab}group g {k} a b\n");
        check_flaw(&text, 3, Threshold(k.into(), 2));
    }
    let twice = SecondMembership("a".into());
    check_flaw(&format!("{ab}group g any a a\n"), 3, twice.clone());
    check_flaw(&format!("{ab}group g any a\ngroup h all a b\n"), 4, twice);
    check_flaw(
        &format!("{ab}group a any b\n"),
        3,
        DuplicateName("a".into()),
    );
    let again = format!("witness a {a}\nwitness b {a}\n");
    check_flaw(&again, 2, DuplicateKey(a.name().into()));
    let other = key("another/name", Algorithm::Ed25519, 9);
    let again = format!("log {l}\nlog {other}\n");
    check_flaw(&again, 2, DuplicateKey("another/name".into()));
    let key_type = |key: &VerifierKey, what, expected| KeyType {
        key: key.name().into(),
        what,
        expected,
    };
    check_flaw(&format!("witness a {l}\n"), 1, key_type(&l, "witness", 4));
    check_flaw(&format!("log {a}\n"), 1, key_type(&a, "log", 1));
    let bad_key = Key {
        key: "a+b".into(),
        source: KeyError::Form,
    };
    check_flaw("log a+b\n", 1, bad_key);
    for control in [
        "quorum none\r\n",
        "quorum\u{b}none\n",
        "quorum none\u{7f}\n",
    ] {
        check_flaw(control, 1, Control);
    }
    check_flaw(&"#".repeat(MAX_POLICY + 1), 1, TooLong);
    let many: String = (0..=MAX_ENTRIES)
        .map(|i| format!("group g{i} any a{i}\n"))
        .collect();
    check_flaw(&many, 1, Undefined("a0".into()));
    let chain = (1..=MAX_ENTRIES).map(|i| format!("group g{i} any g{}\n", i - 1));
    let chain: String = chain.collect();
    check_flaw(
        &format!("witness g0 {a}\n{chain}"),
        MAX_ENTRIES + 1,
        TooMany,
    );
}

#[test]
fn long_chains_of_groups_are_followed() {
    let chain = (1..MAX_ENTRIES).map(|i| format!("group g{i} any g{}\n", i - 1));
    let chain: String = chain.collect();
    let text = format!(
        "witness g0 {}\n{chain}quorum g{}\n",
        witness(1),
        MAX_ENTRIES - 1
    );
    let policy = WitnessPolicy::parse(text).unwrap();
    check_quorum(&policy, &[1], true);
    check_quorum(&policy, &[2], false);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0..800_usize) {
        let _ = WitnessPolicy::parse(&bytes);
        let text = example();
        let at = cut.min(text.len());
        let broken = [&text.as_bytes()[..at], &bytes, &text.as_bytes()[at..]].concat();
        let _ = WitnessPolicy::parse(broken);
    }

    #[test]
    fn more_witnesses_never_take_a_quorum_away(few: u8, more: u8) {
        let policy = WitnessPolicy::parse(example()).unwrap();
        let keys = |set: u8| (1..=6).filter(move |seed| set >> seed & 1 == 1).map(witness);
        let few_keys: Vec<_> = keys(few).collect();
        let all_keys: Vec<_> = keys(few | more).collect();
        prop_assert!(!policy.satisfied_by(&few_keys) || policy.satisfied_by(&all_keys));
    }
}
