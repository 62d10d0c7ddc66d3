//! The policies that come with Sandtrace, and those of its documentation.

use crate::testing::*;
use sandtrace_event::FileOp;

#[test]
fn the_exfiltration_policy_is_the_seeds_manifest() {
    let shipped = include_str!("../../../../../policies/stripe-exfil.yaml");
    assert_eq!(policy(shipped), policy(SEED));
}

#[test]
fn the_persistence_policy_denies_what_outlives_a_run() {
    let text = include_str!("../../../../../policies/persist.yaml");
    let mut engine = engine(&text[text.find("schema_version").unwrap()..]);
    let mut judge = |path| judged(&mut engine, change(FileOp::Modified, path));
    assert_eq!(
        judge("/home/agent/.agent_memory.json"),
        "deny -: no rule covers path /home/agent/.agent_memory.json"
    );
    assert_eq!(
        judge("/home/agent/workspace/a.md"),
        "allow tool:workspace: /home/agent/workspace/a.md is covered"
    );
    assert!(judged(&mut engine, https("api.stripe.com")).starts_with("allow tool:stripe:"));
}

#[test]
fn the_manifests_of_the_documentation_load() {
    let text = include_str!("../../../../../docs/policy.md");
    let blocks = text.split("```yaml\n").skip(1);
    let manifests: Vec<_> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(manifests.len(), 3);
    assert_eq!(policy(manifests[0]), policy(SEED));
    policy(manifests[1]);
    policy(manifests[2]);
}
