//! What is ordered while sandboxes are watched: other settings, a pause; and
//! one output for all of them.

use crate::fleet::{Watch, of_type, records};
use crate::side_by_side::qemu;
use crate::suite::frames_from;
use crate::support::{Alone, config, ended, lab, started};
use rustix::process::{Pid, Signal, kill_process};
use sandtrace_lab::world::World;
use sandtrace_lab::{StandIn, StandInConfig, StandInForm};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The address to which the stand-in sends.
const ALLOWS: &str = "schema_version: \"1.0\"\nrules:\n  - id: tool:all\n    type: network_egress\n    destinations:\n      - cidr: 203.0.113.0/24\n";
const DENIES: &str = "schema_version: \"1.0\"\nrules:\n  - id: tool:other\n    type: network_egress\n    destinations:\n      - cidr: 198.51.100.0/24\n";
const BROKEN: &str = "schema_version: \"1.0\"\nrulez: []\n";

/// Sends until it is killed, and begins a new flow every 160 ms.
fn talker(lab: &Alone, form: StandInForm, id: &str) -> StandInConfig {
    StandInConfig {
        boot_args: "standin.frames=100000 standin.gap_ms=10 standin.delay_ms=100".to_owned(),
        ..config(lab, form, id)
    }
}

/// Waits until the trail holds `count` records of this kind, and gives the last.
#[track_caller]
fn nth(trail: &Path, kind: &str, count: usize) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(trail).unwrap();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<Value> = all.filter(|record| record["event_type"] == kind).collect();
        if let Some(record) = found.get(count - 1) {
            return record.clone();
        }
        assert!(
            Instant::now() < deadline,
            "{} {kind}: {found:?}",
            found.len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The results of the flows that were opened between two records.
fn opened(records: &[Value], after: &Value, before: &Value) -> Vec<String> {
    let between = after["seq"].as_u64().unwrap()..before["seq"].as_u64().unwrap();
    let flows = of_type(records, "network_egress").into_iter();
    flows
        .filter(|flow| between.contains(&flow["seq"].as_u64().unwrap()))
        .filter(|flow| flow["payload"]["phase"] == "open")
        .map(|flow| flow["verdict"]["result"].as_str().unwrap().to_owned())
        .collect()
}

fn check_changes(trail: &Path, hang_up: impl Fn(), policy: &Path) {
    // At least one flow more than the one that is open now.
    let wait = || std::thread::sleep(Duration::from_millis(600));
    wait();
    fs::write(policy, DENIES).unwrap();
    hang_up();
    let first = nth(trail, "policy_change", 1);
    wait();
    fs::write(policy, BROKEN).unwrap();
    hang_up();
    let second = nth(trail, "policy_change", 2);
    wait();
    fs::write(policy, ALLOWS).unwrap();
    hang_up();
    let third = nth(trail, "policy_change", 3);
    wait();
    let all = records(trail);
    let start = &all[0];
    let digest = |record: &Value, name: &str| record["payload"][name].as_str().map(str::to_owned);
    assert_eq!(first["payload"]["accepted"], true, "{first}");
    assert_eq!(digest(&first, "old_policy"), digest(start, "policy_digest"));
    assert_ne!(digest(&first, "new_policy"), digest(&first, "old_policy"));
    assert_eq!(second["payload"]["accepted"], false, "{second}");
    let problem = digest(&second, "problem").unwrap();
    assert!(
        problem.contains("2:1") && problem.contains("rulez"),
        "{problem}"
    );
    assert_eq!(digest(&second, "old_policy"), digest(&first, "new_policy"));
    assert_eq!(digest(&third, "old_policy"), digest(&first, "new_policy"));
    assert_eq!(digest(&third, "new_policy"), digest(start, "policy_digest"));
    let check = |after, before, result: &str| {
        let found = opened(&all, after, before);
        assert!(
            !found.is_empty() && found.iter().all(|it| it == result),
            "{result}: {found:?}"
        );
    };
    check(start, &first, "allow");
    check(&first, &second, "deny");
    check(&second, &third, "deny");
    check(&third, all.last().unwrap(), "allow");
}

#[test]
fn a_policy_is_read_again_for_every_sandbox() {
    let Some(lab) = lab("a_policy_is_read_again_for_every_sandbox") else {
        return;
    };
    let policy = lab.dir().join("policy.yaml");
    fs::write(&policy, ALLOWS).unwrap();
    let settings = lab.dir().join("config.toml");
    fs::write(&settings, "[watch]\npolicy = \"policy.yaml\"\n").unwrap();
    let watch = Watch::start(&lab, &["--config", settings.to_str().unwrap()]);
    let ids = ["one", "two"].map(|name| format!("i{}{name}", lab.id()));
    let start = |id: &String| started(&lab, &talker(&lab, StandInForm::Firecracker, id));
    let _vmms = ids.each_ref().map(start);
    let trails = ids
        .each_ref()
        .map(|id| watch.await_trail(id, "network_egress"));
    check_changes(&trails[0], || watch.hang_up(), &policy);
    let other = records(&trails[1]);
    assert_eq!(of_type(&other, "policy_change").len(), 3);
    assert!(other[0]["payload"]["settings_digest"].is_string());
    // Settings that do not load leave everything as it is.
    fs::write(&settings, "[wacht]\n").unwrap();
    watch.hang_up();
    let refused = nth(&trails[1], "policy_change", 4);
    assert_eq!(refused["payload"]["accepted"], false);
    let problem = refused["payload"]["problem"].as_str().unwrap();
    assert!(
        problem.contains("config.toml:1:2: unknown field"),
        "{problem}"
    );
    // Only other kinds are looked for from here on; those watched still are.
    let text = "[watch]\npolicy = \"policy.yaml\"\n[providers]\nkinds = [\"qemu\"]\n";
    fs::write(&settings, text).unwrap();
    watch.hang_up();
    let kinds = nth(&trails[1], "policy_change", 5)["payload"]["providers"].clone();
    // The command line, which names three, goes over the file.
    assert_eq!(kinds.as_array().unwrap().len(), 3);
    let said = watch.interrupt();
    assert_eq!(said.matches("are in force").count(), 3, "{said}");
    assert_eq!(
        said.matches("the old settings stay in force").count(),
        2,
        "{said}"
    );
}

#[test]
fn a_policy_is_read_again_for_one_sandbox() {
    let Some(lab) = lab("a_policy_is_read_again_for_one_sandbox") else {
        return;
    };
    let id = format!("i{}only", lab.id());
    let vmm = lab
        .stand_in(&talker(&lab, StandInForm::Firecracker, &id))
        .unwrap();
    let (policy, trail) = (lab.dir().join("policy.yaml"), lab.dir().join("trace.jsonl"));
    fs::write(&policy, ALLOWS).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
        .args(["watch", "--sandbox-id", &id, "--syscalls", "off"])
        .arg("--policy")
        .arg(&policy)
        .env("SANDTRACE_TRAIL", &trail)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !trail.exists() {
        assert!(Instant::now() < deadline, "no trail");
        std::thread::sleep(Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none());
    }
    nth(&trail, "sandbox_attached", 1);
    vmm.start().unwrap();
    let pid = Pid::from_child(&child);
    check_changes(&trail, || kill_process(pid, Signal::HUP).unwrap(), &policy);
    drop(vmm);
    assert!(ended(&mut child).success());
}

/// Pauses a VM, or lets it go on.
type Pause<'a> = &'a dyn Fn(&StandIn, bool);

#[test]
fn a_pause_is_recorded() {
    let Some(lab) = lab("a_pause_is_recorded") else {
        return;
    };
    let watch = Watch::start(&lab, &["--state-interval", "100ms"]);
    let by_api = |vmm: &StandIn, paused: bool| vmm.pause(paused).unwrap();
    let by_signal = |vmm: &StandIn, paused: bool| {
        let pid = Pid::from_raw(i32::try_from(vmm.pid()).unwrap()).unwrap();
        kill_process(pid, if paused { Signal::STOP } else { Signal::CONT }).unwrap();
    };
    let cases: [(_, Pause, _, _); 5] = [
        (
            StandInForm::Firecracker,
            &by_api,
            "firecracker_api",
            "firecracker_api",
        ),
        (
            StandInForm::E2b,
            &by_api,
            "firecracker_api",
            "firecracker_api",
        ),
        (
            StandInForm::CloudHypervisor,
            &by_api,
            "cloud_hypervisor_api",
            "cloud_hypervisor_api",
        ),
        (StandInForm::ConfigFile, &by_signal, "process", "none"),
        // One whose API does not answer, by the file of its events.
        (
            StandInForm::CloudHypervisor,
            &by_api,
            "cloud_hypervisor_events",
            "cloud_hypervisor_events",
        ),
    ];
    for (form, pause, paused_by, running_by) in cases {
        let id = format!("i{}{form:?}{}", lab.id(), paused_by.len()).to_lowercase();
        let mut config = talker(&lab, form, &id);
        if paused_by == "cloud_hypervisor_events" {
            config.boot_args += " standin.api=silent";
        }
        let vmm = started(&lab, &config);
        let trail = watch.await_trail(&id, "network_egress");
        pause(&vmm, true);
        let paused = nth(&trail, "sandbox_state", 1);
        assert_eq!(paused["payload"]["state"], "paused", "{paused}");
        assert_eq!(paused["payload"]["source"], paused_by, "{paused}");
        let frames = || frames_from(vmm.netns(), "tap0");
        let sent = frames();
        // It would send one each 10 ms.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(frames(), sent, "{form:?} sends while it is paused");
        pause(&vmm, false);
        let running = nth(&trail, "sandbox_state", 2);
        assert_eq!(running["payload"]["state"], "running", "{running}");
        assert_eq!(running["payload"]["source"], running_by, "{running}");
        assert!(running["payload"]["after"].as_str() >= paused["wall_time"].as_str());
        assert!(frames() > sent, "{form:?} goes on");
    }
    watch.interrupt();
}

/// By its threads: QMP takes no second client.
#[test]
fn a_pause_of_qemu_is_recorded() {
    let Some(lab) = lab("a_pause_of_qemu_is_recorded") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let id = format!("i{}qemu", lab.id());
    // Its guest waits for an order before its first instruction.
    let (_, mut vm) = qemu(&lab, &world, &id);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", lab.netns()]);
    command.arg(env!("CARGO_BIN_EXE_sandtrace"));
    let more = [
        "--provider",
        "qemu",
        "--state-interval",
        "500ms",
        "--syscalls",
        "off",
    ];
    let watch = Watch::over(command, &lab, &more);
    let trail = watch.await_trail(&id, "sandbox_attached");
    let paused = nth(&trail, "sandbox_state", 1);
    assert_eq!(paused["payload"]["state"], "paused", "{paused}");
    assert_eq!(paused["payload"]["source"], "threads", "{paused}");
    vm.resume().unwrap();
    let running = nth(&trail, "sandbox_state", 2);
    assert_eq!(running["payload"]["state"], "running", "{running}");
    vm.wait(Duration::from_secs(60)).unwrap();
    let trail = watch.await_trail(&id, "trail_end");
    // While it ran it never looked as if it were paused.
    assert_eq!(of_type(&records(&trail), "sandbox_state").len(), 2);
    watch.interrupt();
}

#[test]
fn one_output_gets_the_events_of_all() {
    let Some(lab) = lab("one_output_gets_the_events_of_all") else {
        return;
    };
    let events = lab.dir().join("events.jsonl");
    let types = "sandbox_attached,network_egress";
    let watch = Watch::start(
        &lab,
        &["-o", events.to_str().unwrap(), "--filter-type", types],
    );
    let ids = ["one", "two"].map(|name| format!("i{}{name}", lab.id()));
    let start = |id: &String| started(&lab, &config(&lab, StandInForm::Firecracker, id));
    let vmms = ids.each_ref().map(start);
    let trails = ids
        .each_ref()
        .map(|id| watch.await_trail(id, "network_egress"));
    std::thread::sleep(Duration::from_millis(500));
    drop(vmms);
    for id in &ids {
        watch.await_trail(id, "trail_end");
    }
    watch.interrupt();
    let told = fs::read_to_string(events).unwrap();
    for (id, trail) in ids.iter().zip(&trails) {
        let own = |line: &&str| {
            let record: Value = serde_json::from_str(line).unwrap();
            record["sandbox_id"] == id.as_str()
        };
        let trail = fs::read_to_string(trail).unwrap();
        let wanted = |line: &&str| {
            let record: Value = serde_json::from_str(line).unwrap();
            types.split(',').any(|kind| record["event_type"] == kind)
        };
        let expected: Vec<_> = trail.lines().filter(wanted).collect();
        let found: Vec<_> = told.lines().filter(own).collect();
        assert!(expected.len() >= 3);
        assert_eq!(found, expected);
    }
}
