//! Daytona's containers: real namespaces and overlays, and a stand-in for
//! Docker's API.

use crate::fleet::{Watch, of_type, records};
use crate::manners::{check_soon, now_ms, recorded_ms};
use crate::support::{Alone, lab};
use rustix::process::{Pid, Signal, kill_process};
use sandtrace_lab::world::World;
use sandtrace_lab::{
    Container, Docker, NamespaceConfig, NamespaceSandbox, Network, Scenario, scenario,
};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A container with a link of its own, of which Docker tells.
pub(crate) fn contained(
    lab: &Alone,
    world: &World,
    docker: &Docker,
    id: &str,
    third: u8,
) -> NamespaceSandbox {
    let (sandbox, container) = made(lab, world, id, third);
    docker.add(container);
    sandbox
}

/// The same, of which nobody knows yet.
pub(crate) fn made(
    lab: &Alone,
    world: &World,
    id: &str,
    third: u8,
) -> (NamespaceSandbox, Container) {
    made_in(lab, world, apart(world, third), (id, id))
}

/// A network of its own.
pub(crate) fn apart(world: &World, third: u8) -> Network {
    Network {
        address: [172, 31, third, 2].into(),
        prefix: 24,
        gateway: [172, 31, third, 1].into(),
        ..Network::behind_tap(world.resolver())
    }
}

/// One in this network, by the name that Docker has for it and the lab's own.
pub(crate) fn made_in(
    lab: &Alone,
    world: &World,
    network: Network,
    (id, sandbox_id): (&str, &str),
) -> (NamespaceSandbox, Container) {
    let sandbox = lab
        .namespace(&NamespaceConfig {
            sandbox_id: sandbox_id.to_owned(),
            script: scenario::script(Scenario::StripeExfil, world, network),
            overlay: lab.overlay(&scenario::base_tree()).unwrap(),
        })
        .unwrap();
    let container = Container {
        name: id.to_owned(),
        pid: sandbox.pid(),
        upper: Some(sandbox.upper().to_owned()),
        env: vec![format!("DAYTONA_SANDBOX_ID={id}")],
        labels: Vec::new(),
    };
    (sandbox, container)
}

/// From where the other ends of the links are.
pub(crate) fn sandtrace(lab: &Alone) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", lab.netns()]);
    command.arg(env!("CARGO_BIN_EXE_sandtrace"));
    command
}

pub(crate) fn watched(lab: &Alone, docker: &Docker, more: &[&str]) -> Watch {
    let socket = docker.socket().to_str().unwrap();
    let kinds = ["--provider", "daytona", "--docker-socket", socket];
    let watch = Watch::over(sandtrace(lab), lab, &[&kinds, more].concat());
    await_listener(docker);
    watch
}

/// Waits until somebody hears Docker's events.
pub(crate) fn await_listener(docker: &Docker) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while docker.listeners() == 0 {
        assert!(Instant::now() < deadline, "nobody hears the events");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn listed(lab: &Alone, docker: &Docker) -> Value {
    let output = sandtrace(lab)
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

#[test]
fn containers_are_found_by_events_and_what_is_lost_by_looking() {
    let Some(lab) = lab("containers_are_found_by_events_and_what_is_lost_by_looking") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let name = |kind: &str| format!("i{}{kind}", lab.id());
    let (broken, container) = made(&lab, &world, &name("broken"), 1);
    docker.add(container);
    docker.break_container(&name("broken"));
    let watch = watched(&lab, &docker, &[]);
    // What no list tells of, an event did.
    let (_event, container) = made(&lab, &world, &name("event"), 2);
    docker.add_unlisted(container);
    watch.await_trail(&name("event"), "sandbox_attached");
    // Docker starts anew.
    docker.end_events();
    await_listener(&docker);
    let (_again, container) = made(&lab, &world, &name("again"), 3);
    docker.add_unlisted(container);
    watch.await_trail(&name("again"), "sandbox_attached");
    // What no event told of, a list does, beside one of which Docker does not tell.
    let (_silent, container) = made(&lab, &world, &name("silent"), 4);
    docker.add_silently(container);
    watch.await_trail(&name("silent"), "sandbox_attached");
    let said = watch.interrupt();
    let problem = format!("problem: container \"{}\"", name("broken"));
    assert_eq!(said.matches(&problem).count(), 1, "{said}");
    assert!(said.contains("3 sandboxes were watched"), "{said}");
    drop(broken);
}

#[test]
fn an_event_of_a_pause_is_a_look() {
    let Some(lab) = lab("an_event_of_a_pause_is_a_look") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let id = format!("i{}paused", lab.id());
    let watch = watched(&lab, &docker, &["--state-interval", "1h"]);
    let sandbox = contained(&lab, &world, &docker, &id, 1);
    watch.await_trail(&id, "sandbox_attached");
    // Its state is followed from a moment after that.
    let process = Pid::from_raw(i32::try_from(sandbox.pid()).unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let trail = loop {
        docker.tell("pause", &id);
        let trail = watch.await_trail(&id, "sandbox_attached");
        if !of_type(&records(&trail), "sandbox_state").is_empty() {
            break trail;
        }
        assert!(Instant::now() < deadline, "the pause is not seen");
        std::thread::sleep(Duration::from_millis(20));
    };
    let records = records(&trail);
    let state = of_type(&records, "sandbox_state");
    assert_eq!(state[0]["payload"]["state"], "paused");
    kill_process(process, Signal::CONT).unwrap();
    drop(sandbox);
    watch.await_trail(&id, "trail_end");
    watch.interrupt();
}

/// How long it takes from Docker's word that a container runs to the record
/// that it is watched.
#[test]
fn a_container_is_attached_soon_after_its_start() {
    let Some(lab) = lab("a_container_is_attached_soon_after_its_start") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let watch = watched(&lab, &docker, &[]);
    let mut sandboxes = Vec::new();
    let took = (1..=9).map(|number| {
        let id = format!("i{}n{number}", lab.id());
        let (sandbox, container) = made(&lab, &world, &id, number);
        sandboxes.push(sandbox);
        let started = now_ms();
        docker.add(container);
        let trail = watch.await_trail(&id, "sandbox_attached");
        recorded_ms(of_type(&records(&trail), "sandbox_attached")[0]).saturating_sub(started)
    });
    // By looking each second it would take half a second on average.
    check_soon(took.collect());
    watch.interrupt();
}

/// With containerd's image store Docker names no upper dir: the container's
/// own root mount does.
#[test]
fn an_upper_dir_by_the_containers_own_mount() {
    let Some(lab) = lab("an_upper_dir_by_the_containers_own_mount") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let id = format!("i{}store", lab.id());
    let sandbox = lab
        .namespace(&NamespaceConfig {
            sandbox_id: id.clone(),
            script: scenario::script(
                Scenario::StripeExfil,
                &world,
                Network::behind_tap(world.resolver()),
            ),
            overlay: lab.snapshot(&scenario::base_tree()).unwrap(),
        })
        .unwrap();
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    docker.add(Container {
        name: id.clone(),
        pid: sandbox.pid(),
        upper: None,
        env: Vec::new(),
        labels: vec![
            label("daytona.sandbox_name", "blue"),
            label("daytona.organization_name", "org"),
        ],
    });
    let listed = listed(&lab, &docker);
    let [target] = listed["sandboxes"].as_array().unwrap().as_slice() else {
        panic!("{listed}")
    };
    let found = &target["found"];
    assert_eq!(found["disks"][0]["kind"], "overlay", "{listed}");
    assert_eq!(found["disks"][0]["path"], sandbox.upper().to_str().unwrap());
    assert_eq!(found["labels"]["daytona.sandbox_name"], "blue");
    assert_eq!(found["labels"]["daytona.organization_name"], "org");
    assert_eq!(found["taps"][0]["interface"], sandbox.interface());
}

/// The upper layer of a container that runs against those of its image.
#[test]
fn the_layers_of_a_container_are_compared() {
    let Some(lab) = lab("the_layers_of_a_container_are_compared") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let id = format!("i{}layers", lab.id());
    let sandbox = contained(&lab, &world, &docker, &id, 1);
    let fsdiff = || {
        let mut command = sandtrace(&lab);
        command.args(["fsdiff", "--sandbox", &id]);
        command.env("SANDTRACE_DOCKER_SOCKET", docker.socket());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let before = fsdiff();
    // As the container's own processes would.
    let root = Path::new("/proc")
        .join(sandbox.pid().to_string())
        .join("root");
    fs::write(root.join("planted"), "by the agent").unwrap();
    let of_image = root.join("home/agent/.aws/credentials");
    fs::write(&of_image, "changed").unwrap();
    let after = fsdiff();
    println!("{before}---\n{after}");
    assert!(!before.contains("planted"), "{before}");
    assert!(after.contains("created   /planted"), "{after}");
    // What a layer below holds is not new.
    assert!(
        after.contains("modified  /home/agent/.aws/credentials"),
        "{after}"
    );
}
