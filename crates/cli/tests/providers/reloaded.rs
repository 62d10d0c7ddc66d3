//! What is read again while sandboxes are watched: which are looked for, how many,
//! at which socket, whose answers count; and what is not.

use crate::containers::{await_listener, made, sandtrace};
use crate::fleet::{Watch, check_trail, of_type, records, trails_of};
use crate::support::{Alone, config, lab};
use sandtrace_lab::world::World;
use sandtrace_lab::{StandIn, StandInForm};
use sandtrace_sys::netns::{path_of, within};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longer than the time between two looks at everything.
const LOOKED: Duration = Duration::from_millis(2500);

/// The record of the change of this number, from 1.
#[track_caller]
fn change(trail: &Path, number: usize) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(trail).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole.lines();
        let all = all.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut changes = all.filter(|it| it["event_type"] == "policy_change");
        if let Some(found) = changes.nth(number - 1) {
            return found["payload"].clone();
        }
        assert!(Instant::now() < deadline, "no change {number}: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn started(lab: &Alone, form: StandInForm, name: &str) -> (String, StandIn) {
    let id = format!("i{}{name}", lab.id());
    let vmm = crate::support::started(lab, &config(lab, form, &id));
    (id, vmm)
}

#[test]
fn providers_and_the_bound_change_without_a_restart() {
    let Some(lab) = lab("providers_and_the_bound_change_without_a_restart") else {
        return;
    };
    let settings = lab.dir().join("config.toml");
    let set = |kinds: &str, most: u32| {
        let text = format!("[watch]\nmax_sandboxes = {most}\n[providers]\nkinds = [{kinds}]\n");
        fs::write(&settings, text).unwrap();
    };
    set("\"firecracker\"", 1);
    let command = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let watch = Watch::over(command, &lab, &["--config", settings.to_str().unwrap()]);
    let (first, _first) = started(&lab, StandInForm::Firecracker, "first");
    let trail = watch.await_trail(&first, "sandbox_attached");
    let (other, _other) = started(&lab, StandInForm::CloudHypervisor, "other");
    std::thread::sleep(LOOKED);
    assert!(trails_of(&watch.trails, &other).is_empty());
    // Its kind is looked for now, but there is no room for it.
    set("\"firecracker\", \"cloud-hypervisor\"", 1);
    watch.hang_up();
    let kinds = change(&trail, 1);
    assert_eq!(kinds["accepted"], true, "{kinds}");
    assert_eq!(kinds["providers"].as_array().unwrap().len(), 2, "{kinds}");
    assert_ne!(kinds["old_settings"], kinds["new_settings"], "{kinds}");
    std::thread::sleep(LOOKED);
    assert!(trails_of(&watch.trails, &other).is_empty());
    // Room for one more.
    set("\"firecracker\", \"cloud-hypervisor\"", 2);
    watch.hang_up();
    let room = change(&trail, 2);
    assert_eq!(room["old_settings"], kinds["new_settings"], "{room}");
    let second = watch.await_trail(&other, "sandbox_attached");
    // The others' kind is no longer looked for; the one that is watched stays so.
    set("\"cloud-hypervisor\"", 9);
    watch.hang_up();
    assert_eq!(
        change(&trail, 3)["providers"],
        serde_json::json!(["cloud-hypervisor"])
    );
    assert_eq!(change(&second, 1)["accepted"], true);
    let (late, _late) = started(&lab, StandInForm::Firecracker, "late");
    std::thread::sleep(LOOKED);
    assert!(trails_of(&watch.trails, &late).is_empty());
    let all = records(&trail);
    assert!(of_type(&all, "trail_end").is_empty());
    let said = watch.interrupt();
    assert!(said.contains("which --max-sandboxes allows"), "{said}");
    assert!(said.contains("2 sandboxes were watched"), "{said}");
}

/// Another value for each setting that needs a restart.
const OTHERS: &str = r#"
[watch]
trail = "other.jsonl"
trail_dir = "other"
scan_interval = "1h"
scan_secrets = true
capture = "ebpf"
call_pause = "3s"
syscalls = "off"
syscall_interval = "1h"
state_interval = "1h"
state_dir = "keys"
witness = ["http://127.0.0.1:9"]
segment_size = "4K"
segment_age = "1s"
evidence_pcap = "frames"
max_size = "1M"
[output]
targets = ["events.jsonl"]
filter_type = ["dns_query"]
filter_tier = ["kernel"]
filter_verdict = ["deny"]
"#;

/// The keys of which the published schema says so.
fn restart_keys() -> BTreeSet<String> {
    let mut schema = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let schema = schema.args(["config", "schema"]).output().unwrap().stdout;
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let sections = schema["properties"].as_object().unwrap().iter();
    let keys = sections.flat_map(|(section, of_section)| {
        let members = of_section["properties"].as_object().unwrap().iter();
        let kept = members.filter(|(_, said)| {
            let about = said["description"].as_str().unwrap();
            about.contains("needs a restart")
        });
        kept.map(move |(name, _)| format!("{section}.{name}"))
    });
    keys.collect()
}

fn restarts(change: &Value) -> BTreeSet<String> {
    let named = change["needs_restart"].as_array().into_iter().flatten();
    named.map(|key| key.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_needs_a_restart_is_said_and_stays_as_it_is() {
    let Some(lab) = lab("what_needs_a_restart_is_said_and_stays_as_it_is") else {
        return;
    };
    let settings = lab.dir().join("config.toml");
    fs::write(&settings, "").unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let more = ["--provider", "firecracker", "--config"];
    let more = [&more[..], &[settings.to_str().unwrap()]].concat();
    let watch = Watch::over(command, &lab, &more);
    let (first, _first) = started(&lab, StandInForm::Firecracker, "first");
    let trail = watch.await_trail(&first, "sandbox_attached");
    fs::write(&settings, OTHERS).unwrap();
    watch.hang_up();
    let refused = change(&trail, 1);
    assert_eq!(refused["accepted"], true, "{refused}");
    let mut expected = restart_keys();
    // The command line goes over what is read again, and so does the environment.
    assert!(expected.remove("watch.trail_dir"));
    if std::env::var_os("SANDTRACE_STATE_DIR").is_some() {
        assert!(expected.remove("watch.state_dir"));
    }
    assert_eq!(restarts(&refused), expected);
    // One that comes now is watched as those before it.
    let id = format!("i{}late", lab.id());
    let vmm = lab.stand_in(&config(&lab, StandInForm::Firecracker, &id));
    let mut vmm = vmm.unwrap();
    let late = watch.await_trail(&id, "sandbox_attached");
    vmm.start().unwrap();
    watch.await_trail(&id, "syscall_activity");
    std::thread::sleep(Duration::from_millis(500));
    vmm.kill();
    watch.await_trail(&id, "trail_end");
    check_trail(&late, &id, 5);
    let (start, before) = (
        &records(&late)[0]["payload"],
        &records(&trail)[0]["payload"],
    );
    assert_eq!(start["capture"], before["capture"]);
    // The digest is of a file of which these are not in force.
    assert_eq!(start["settings_digest"], refused["new_settings"]);
    assert_eq!(restarts(start), expected);
    assert_eq!(restarts(before), BTreeSet::new());
    for name in ["other", "keys", "frames", "events.jsonl"] {
        assert!(!lab.dir().join(name).exists(), "{name}");
    }
    // Nothing of it is left.
    fs::write(&settings, "").unwrap();
    watch.hang_up();
    assert_eq!(restarts(&change(&trail, 2)), BTreeSet::new());
    let said = watch.interrupt();
    let told = said
        .lines()
        .find(|line| line.starts_with("SIGHUP"))
        .unwrap();
    assert!(expected.iter().all(|key| told.contains(key)), "{told}");
    assert!(told.contains("needs a restart"), "{told}");
}

/// A question for api.stripe.com from within a sandbox; what the answer is does
/// not matter.
fn ask(netns: &str, resolver: Ipv4Addr) {
    let name = b"\x03api\x06stripe\x03com\0\0\x01\0\x01";
    let question = [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &name[..]].concat();
    let asked = within(Some(&path_of(netns)), || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket.send_to(&question, (resolver, 53)).unwrap();
        socket.recv_from(&mut [0; 512]).unwrap()
    });
    asked.unwrap();
}

/// Verdicts on questions, once there are so many.
#[track_caller]
fn answers(watch: &Watch, id: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let trail = watch.await_trail(id, "dns_query");
        let text = fs::read_to_string(&trail).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole.lines();
        let all: Vec<Value> = all
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let asked = of_type(&all, "dns_query");
        if asked.len() >= count {
            return asked.iter().map(|it| it["verdict"].clone()).collect();
        }
        assert!(Instant::now() < deadline, "{asked:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn dockers_socket_and_resolvers_change_without_a_restart() {
    let Some(lab) = lab("dockers_socket_and_resolvers_change_without_a_restart") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let id = format!("i{}box", lab.id());
    let (sandbox, container) = made(&lab, &world, &id, 1);
    docker.add(container);
    let (settings, policy) = (lab.dir().join("config.toml"), lab.dir().join("policy.yaml"));
    let rule = "schema_version: \"1.0\"\nrules:\n  - id: tool:stripe\n    type: network_egress\n    \
                destinations:\n      - host: api.stripe.com\n        port: 443\n";
    fs::write(&policy, rule).unwrap();
    let set = |socket: &Path, resolvers: &[Ipv4Addr]| {
        let (socket, resolvers) = (json!(socket), json!(resolvers));
        let text = format!(
            "[watch]\npolicy = \"policy.yaml\"\nresolvers = {resolvers}\n[providers]\n\
             kinds = [\"daytona\"]\ndocker_socket = {socket}\n"
        );
        fs::write(&settings, text).unwrap();
    };
    let nobody = lab.dir().join("nobody.sock");
    set(&nobody, &[]);
    let watch = Watch::over(
        sandtrace(&lab),
        &lab,
        &["--config", settings.to_str().unwrap()],
    );
    std::thread::sleep(LOOKED);
    assert!(trails_of(&watch.trails, &id).is_empty());
    // Docker is asked where it is now, and its events are heard.
    set(docker.socket(), &[]);
    watch.hang_up();
    let trail = watch.await_trail(&id, "sandbox_attached");
    await_listener(&docker);
    ask(sandbox.netns(), world.resolver());
    let [before] = &answers(&watch, &id, 1)[..] else {
        panic!("more than one question")
    };
    assert_eq!(before["result"], "deny", "{before}");
    assert!(
        before["reason"]
            .as_str()
            .unwrap()
            .contains("not an accepted one")
    );
    // Its answers count from now on, also for the sandbox that runs.
    set(docker.socket(), &[world.resolver()]);
    watch.hang_up();
    let first = change(&trail, 1);
    assert_eq!(first["accepted"], true, "{first}");
    assert_ne!(first["old_settings"], first["new_settings"], "{first}");
    assert_eq!(first["old_policy"], first["new_policy"], "{first}");
    ask(sandbox.netns(), world.resolver());
    let after = &answers(&watch, &id, 2)[1];
    assert_eq!(after["result"], "allow", "{after}");
    // Docker is nobody's business any more; who is watched stays so.
    set(&nobody, &[world.resolver()]);
    watch.hang_up();
    assert_eq!(change(&trail, 2)["accepted"], true);
    let deadline = Instant::now() + Duration::from_secs(20);
    while docker.listeners() > 0 {
        // It notices that nobody hears it when it has something to say.
        docker.tell("pause", &id);
        assert!(Instant::now() < deadline, "it is still heard");
        std::thread::sleep(Duration::from_millis(20));
    }
    ask(sandbox.netns(), world.resolver());
    assert_eq!(answers(&watch, &id, 3)[2]["result"], "allow");
    assert!(of_type(&records(&trail), "trail_end").is_empty());
    watch.interrupt();
}
