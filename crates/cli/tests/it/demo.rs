//! `sandtrace demo`, all of it, on both kinds of sandbox.

use sandtrace_event::VerdictResult;
use sandtrace_lab::Scenario;

use crate::support::{Dir, Kind, assert_sealed, assert_story, judged, privileged, run};

struct Story {
    name: &'static str,
    runs: &'static [(Scenario, &'static str)],
}

const STRIPE_EXFIL: Story = Story {
    name: "stripe-exfil",
    runs: &[(Scenario::StripeExfil, "trace.jsonl")],
};

const PERSIST: Story = Story {
    name: "persist",
    runs: &[
        (Scenario::PersistPlant, "run-1.jsonl"),
        (Scenario::PersistAct, "run-2.jsonl"),
    ],
};

#[test]
fn stripe_exfil_on_a_microvm() {
    check(&STRIPE_EXFIL, Kind::MicroVm);
}

#[test]
fn stripe_exfil_in_namespaces() {
    check(&STRIPE_EXFIL, Kind::Namespace);
}

#[test]
fn persist_on_a_microvm() {
    check(&PERSIST, Kind::MicroVm);
}

#[test]
fn persist_in_namespaces() {
    check(&PERSIST, Kind::Namespace);
}

#[track_caller]
fn check(story: &Story, kind: Kind) {
    if !privileged(&format!("{} ({})", story.name, kind.word())) {
        return;
    }
    let dir = Dir::new();
    let out = dir.text("out");
    let demo = run(&["demo", story.name, "--sandbox", kind.word(), "--keep", &out]);
    let demo = demo.expect(0).quiet();
    assert!(!demo.stdout.contains('\x1b'), "colour without a terminal");
    for said in ["agent ▸", "VALID L2 sealed", "Try next"] {
        assert!(demo.stdout.contains(said), "no {said:?}: {}", demo.stdout);
    }
    let policy = dir.text("out/policy.yaml");
    for (scenario, trail) in story.runs {
        let trail = dir.text(&format!("out/{trail}"));
        let events = assert_sealed(&trail);
        assert_story(&events, *scenario);
        check_against(&trail, &policy, &events);
    }
}

/// The policy judges the trail as it was judged while it was written.
#[track_caller]
fn check_against(trail: &str, policy: &str, events: &[sandtrace_event::AuditEvent]) {
    let bad = [VerdictResult::Anomaly, VerdictResult::Deny];
    let violations: usize = bad.into_iter().map(|result| judged(events, result)).sum();
    let code = if violations > 0 { 5 } else { 0 };
    let again = run(&["verify", trail, "--against", policy])
        .expect(code)
        .quiet();
    let said = format!("{violations} violations, 0 verdicts differ");
    assert!(again.stdout.contains(&said), "{}", again.stdout);
    let listed = again
        .stdout
        .lines()
        .filter(|line| line.starts_with("  seq "));
    assert_eq!(listed.count(), violations);
    let json = run(&["verify", trail, "--against", policy, "--json"]).expect(code);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["exit_code"], code);
    assert_eq!(json["policy"]["judged_again"]["violations"], violations);
}

/// What is in the directory already stays as it is.
#[test]
fn nothing_kept_is_overwritten() {
    if !privileged("nothing kept is overwritten") {
        return;
    }
    let dir = Dir::new();
    let out = dir.text("");
    let policy = dir.file("policy.yaml", "mine");
    let demo = ["demo", "--sandbox", "namespace", "--keep", &out];
    run(&demo)
        .expect(73)
        .one_line(&["policy.yaml", "File exists"]);
    assert_eq!(std::fs::read(&policy).unwrap(), b"mine");
    std::fs::remove_file(policy).unwrap();
    let trail = dir.file("trace.jsonl", "mine too");
    let again = run(&demo).expect(73);
    assert!(
        again.stderr.contains("trace.jsonl exists"),
        "{}",
        again.stderr
    );
    assert_eq!(std::fs::read(trail).unwrap(), b"mine too");
    assert_eq!(dir.names(), ["policy.yaml", "state", "trace.jsonl"]);
}
