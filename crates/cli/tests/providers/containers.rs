//! Daytona's containers: real namespaces and overlays, and a stand-in for
//! Docker's API.

use crate::support::{Alone, lab};
use sandtrace_lab::world::World;
use sandtrace_lab::{
    Container, Docker, NamespaceConfig, NamespaceSandbox, Network, Scenario, scenario,
};
use serde_json::Value;
use std::process::Command;

/// A container with a link of its own, of which Docker tells.
fn contained(lab: &Alone, world: &World, docker: &Docker, id: &str, third: u8) -> NamespaceSandbox {
    let network = Network {
        address: [172, 31, third, 2].into(),
        prefix: 24,
        gateway: [172, 31, third, 1].into(),
        ..Network::behind_tap(world.resolver())
    };
    let sandbox = lab
        .namespace(&NamespaceConfig {
            sandbox_id: id.to_owned(),
            script: scenario::script(Scenario::StripeExfil, world, network),
            overlay: lab.overlay(&scenario::base_tree()).unwrap(),
        })
        .unwrap();
    docker.add(Container {
        name: id.to_owned(),
        pid: sandbox.pid(),
        upper: Some(sandbox.upper().to_owned()),
        env: vec![format!("DAYTONA_SANDBOX_ID={id}")],
        labels: Vec::new(),
    });
    sandbox
}

/// What `list` says, from where the other ends of the links are.
fn listed(lab: &Alone, docker: &Docker) -> Value {
    let output = Command::new("ip")
        .args(["netns", "exec", lab.netns()])
        .arg(env!("CARGO_BIN_EXE_sandtrace"))
        .args(["list", "--json", "--provider", "daytona", "--docker-socket"])
        .arg(docker.socket())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn interfaces(listed: &Value, id: &str) -> Vec<String> {
    let sandboxes = listed["sandboxes"].as_array().unwrap();
    let ours = sandboxes.iter().find(|it| it["sandbox_id"] == id);
    let ours = ours.unwrap_or_else(|| panic!("no {id}: {listed}"));
    // Without any there is no list.
    let taps = ours["found"]["taps"].as_array().into_iter().flatten();
    taps.map(|tap| tap["interface"].as_str().unwrap().to_owned())
        .collect()
}

fn ip(words: &str) -> String {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Own index, and the other end's, of a link.
fn indexes(netns: &str, link: &str) -> (u64, u64) {
    let json: Value =
        serde_json::from_str(&ip(&format!("-n {netns} -j link show {link}"))).unwrap();
    let number = |name: &str| json[0][name].as_u64().unwrap();
    (number("ifindex"), number("link_index"))
}

#[test]
fn forged_indexes_lead_to_no_link_of_another() {
    let Some(lab) = lab("forged_indexes_lead_to_no_link_of_another") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let [honest, forger] = ["honest", "forger"].map(|name| format!("i{}{name}", lab.id()));
    let attacker = contained(&lab, &world, &docker, &forger, 2);
    let third = contained(&lab, &world, &docker, &format!("i{}third", lab.id()), 3);
    let victim = contained(&lab, &world, &docker, &honest, 1);
    let before = listed(&lab, &docker);
    assert_eq!(interfaces(&before, &honest), [victim.interface()]);
    assert_eq!(interfaces(&before, &forger), [attacker.interface()]);
    // What a privileged container can do: a pair inside with the very indexes
    // of both ends of the other's link.
    let (outer, inner) = indexes(lab.netns(), victim.interface());
    assert_ne!(outer, inner, "a pair in one namespace cannot have these");
    let netns = attacker.netns();
    ip(&format!("-n {netns} link del eth0"));
    ip(&format!(
        "-n {netns} link add forged0 index {inner} type veth peer name forged1 index {outer}"
    ));
    let after = listed(&lab, &docker);
    assert_eq!(interfaces(&after, &honest), [victim.interface()]);
    assert!(interfaces(&after, &forger).is_empty(), "{after}");
    // The same with an end elsewhere.
    ip(&format!("-n {netns} link del forged0"));
    ip(&format!(
        "-n {netns} link add forged0 index {inner} type veth peer name forged1 index {outer} netns {}",
        third.netns()
    ));
    let after = listed(&lab, &docker);
    assert_eq!(interfaces(&after, &honest), [victim.interface()]);
    assert!(interfaces(&after, &forger).is_empty(), "{after}");
}
