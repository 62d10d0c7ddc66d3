//! Each provider finds identity, interface, disk and process, says what it
//! cannot see, and records no secret.

use crate::suite::Expected;
use crate::support::{CANARY, config, lab, skipped, started};
use sandtrace_event::RunState;
use sandtrace_lab::world::World;
use sandtrace_lab::{
    Accelerator, Container, Lab, NamespaceConfig, Network, Scenario, StandIn, StandInConfig,
    StandInForm, detect, guest_binary, kernel, scenario,
};
use sandtrace_provider::{
    DiscoverConfig, FindError, ProcRoot, Stillness, Target, find_in, run_state,
};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// A VMM that reads its configuration from a file does so after its start.
fn find(id: &str) -> Target {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = find_in(&ProcRoot::host(), id, &DiscoverConfig::default());
        match found {
            Ok(target) if !target.taps.is_empty() && !target.disks.is_empty() => return target,
            found => assert!(Instant::now() < deadline, "{id}: {found:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check(expected: &Expected, vmm: &StandIn) {
    let target = find(&expected.id);
    assert_eq!(target.sandbox_id, expected.id);
    expected.check(&target.attached());
    // What a watch reads is that very file.
    let open = target.disks[0].open_path.metadata().unwrap();
    let file = vmm.disk().metadata().unwrap();
    assert_eq!((open.dev(), open.ino()), (file.dev(), file.ino()));
    assert!(!format!("{target:?}").contains(CANARY));
}

/// The stand-in, and the real program where the environment names one and KVM
/// runs what it boots.
fn programs(form: StandInForm) -> impl Iterator<Item = (StandInForm, bool)> {
    let real = form.real().filter(|program| {
        let refusal = kvm_refusal();
        if let Some(why) = &refusal {
            skipped(&format!("{form:?} by {}", program.display()), why);
        }
        refusal.is_none()
    });
    let real = real.map(|_| (form, true));
    [(form, false)].into_iter().chain(real)
}

/// Why no real VMM can run its guest here.
fn kvm_refusal() -> Option<String> {
    let detected = detect(&kernel::locate().unwrap(), &guest_binary().unwrap()).unwrap();
    (detected.accelerator == Accelerator::Tcg).then_some(detected.reason)
}

fn run_by(lab: &Lab, form: StandInForm, real: bool, id: &str) -> StandInConfig {
    StandInConfig {
        real,
        ..config(lab, form, id)
    }
}

#[test]
fn every_form_side_by_side_with_the_same_tap_name() {
    let Some(lab) = lab("every_form_side_by_side_with_the_same_tap_name") else {
        return;
    };
    let vmms: Vec<_> = StandInForm::ALL
        .into_iter()
        .flat_map(programs)
        .map(|(form, real)| {
            let kind = if real { "real" } else { "" };
            let id = format!("i{}{form:?}{kind}", lab.id()).to_lowercase();
            let vmm = started(&lab, &run_by(&lab, form, real, &id));
            (Expected::stand_in(form, &id, &vmm), vmm)
        })
        .collect();
    for (expected, vmm) in &vmms {
        check(expected, vmm);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
        .args(["list", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(CANARY));
    let json: Value = serde_json::from_str(&text).unwrap();
    let listed = json["sandboxes"].as_array().unwrap();
    for (Expected { id, provider, .. }, _) in &vmms {
        let ours = listed.iter().filter(|it| it["sandbox_id"] == id.as_str());
        let ours: Vec<_> = ours.collect();
        assert_eq!(ours.len(), 1, "{id}: {text}");
        assert_eq!(ours[0]["found"]["provider"], provider.as_str());
    }
}

/// What Firecracker takes at what time; where it is refused nothing is changed.
#[test]
fn an_interface_that_is_given_again_takes_the_place_of_the_first() {
    let Some(lab) = lab("an_interface_that_is_given_again_takes_the_place_of_the_first") else {
        return;
    };
    for (form, real) in programs(StandInForm::Firecracker) {
        let id = format!("i{}twice{}", lab.id(), u8::from(real));
        let config = run_by(&lab, form, real, &id);
        let vmm = lab.stand_in(&config).unwrap();
        let taps = || find(&id).taps.into_iter().map(|tap| tap.interface);
        assert_eq!(taps().collect::<Vec<_>>(), ["tap0"]);
        vmm.add_tap("eth0", "second0").unwrap();
        assert_eq!(taps().collect::<Vec<_>>(), ["second0"]);
        let early = vmm.pause(true).unwrap_err().to_string();
        assert!(
            early.contains("not supported before starting the microVM"),
            "{early}"
        );
        vmm.start().unwrap();
        let late = vmm.add_tap("eth1", "third0").unwrap_err().to_string();
        assert!(
            late.contains("not supported after starting the microVM"),
            "{late}"
        );
        assert_eq!(taps().collect::<Vec<_>>(), ["second0"]);
    }
}

#[test]
fn an_id_that_is_used_again_is_told_by_its_run() {
    let Some(lab) = lab("an_id_that_is_used_again_is_told_by_its_run") else {
        return;
    };
    for (form, real) in programs(StandInForm::E2b) {
        let id = format!("i{}again{}", lab.id(), u8::from(real));
        check_runs_of_one_id(&lab, &run_by(&lab, form, real, &id));
    }
}

#[track_caller]
fn check_runs_of_one_id(lab: &Lab, config: &StandInConfig) {
    let id = &config.sandbox_id;
    let mut first = started(lab, config);
    let old = find(id);
    let second = started(lab, config);
    let found = find_in(&ProcRoot::host(), id, &DiscoverConfig::default());
    let Err(FindError::Ambiguous { pids, .. }) = found else {
        panic!("{found:?}")
    };
    assert_eq!(pids.len(), 2);
    let run = |target: &Target| format!("{id}-{}", target.labels["e2b.run"]);
    assert_eq!(find(&run(&old)).vmm, old.vmm);
    first.kill();
    let new = find(id);
    assert_eq!(new.vmm.as_ref().unwrap().pid, second.pid());
    assert_ne!(run(&new), run(&old));
}

#[test]
fn one_id_in_two_of_containerds_namespaces() {
    let Some(lab) = lab("one_id_in_two_of_containerds_namespaces") else {
        return;
    };
    let id = format!("i{}shim", lab.id());
    let config = config(&lab, StandInForm::Containerd, &id);
    let vmms = ["one", "two"].map(|namespace| {
        let namespace = namespace.to_owned();
        let config = StandInConfig {
            namespace: namespace.clone(),
            ..config.clone()
        };
        (namespace, started(&lab, &config))
    });
    let found = find_in(&ProcRoot::host(), &id, &DiscoverConfig::default());
    let Err(FindError::Ambiguous { pids, .. }) = found else {
        panic!("{found:?}")
    };
    assert_eq!(pids.len(), 2);
    for (namespace, vmm) in &vmms {
        let target = find(&format!("{namespace}#{id}"));
        assert_eq!(target.vmm.as_ref().unwrap().pid, vmm.pid());
        assert_eq!(target.sandbox_id, id);
        assert_eq!(target.labels["containerd.namespace"], *namespace);
    }
}

/// What the orchestrators' own cgroups say: E2B's, and the jailer's.
#[test]
fn a_frozen_cgroup_is_a_pause() {
    let Some(lab) = lab("a_frozen_cgroup_is_a_pause") else {
        return;
    };
    let forms = [StandInForm::E2b, StandInForm::Jailed].into_iter();
    for (form, real) in forms.flat_map(programs) {
        let id = format!("i{}{form:?}{}", lab.id(), u8::from(real)).to_lowercase();
        let vmm = started(&lab, &run_by(&lab, form, real, &id));
        let identity = find(&id).vmm.unwrap();
        let state = || {
            let deadline = Instant::now() + Duration::from_secs(5);
            let mut stillness = Stillness::default();
            run_state(&ProcRoot::host(), &identity, &mut stillness, deadline).unwrap()
        };
        let await_state = |expected, source| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while (state().state, state().source) != (expected, source) {
                assert!(Instant::now() < deadline, "{form:?}: {:?}", state());
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        await_state(RunState::Running, "firecracker_api");
        if !vmm.freeze(true).unwrap() {
            skipped(&format!("{form:?}"), &"no cgroup of its own on this host");
            continue;
        }
        await_state(RunState::Paused, "cgroup");
        vmm.freeze(false).unwrap();
        await_state(RunState::Running, "firecracker_api");
    }
}

#[test]
fn daytonas_container_by_dockers_word() {
    let Some(lab) = lab("daytonas_container_by_dockers_word") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let network = Network::behind_tap(world.resolver());
    let script = scenario::script(Scenario::StripeExfil, &world, network);
    let overlay = lab.overlay(&scenario::base_tree()).unwrap();
    let sandbox = lab
        .namespace(&NamespaceConfig {
            sandbox_id: "container".to_owned(),
            script,
            overlay,
        })
        .unwrap();
    let docker = lab.docker().unwrap();
    let id = format!("day-{}", lab.id());
    docker.add(Container {
        name: id.clone(),
        pid: sandbox.pid(),
        upper: Some(sandbox.upper().to_owned()),
        env: vec![
            format!("DAYTONA_SANDBOX_ID={id}"),
            "DAYTONA_SANDBOX_SNAPSHOT=python-3.12".to_owned(),
            format!("OPENAI_API_KEY={CANARY}"),
            format!("PADDING={}", "x".repeat(4096)),
        ],
        labels: vec![
            ("daytona.organization_id".to_owned(), "org-1".to_owned()),
            ("token".to_owned(), CANARY.to_owned()),
            ("agent_id".to_owned(), "coder".to_owned()),
        ],
    });
    docker.add(Container {
        name: "somebody-elses".to_owned(),
        pid: std::process::id(),
        upper: None,
        env: Vec::new(),
        labels: Vec::new(),
    });
    // Where the other ends of the containers' links are is where Docker is.
    let output = Command::new("ip")
        .args([
            "netns",
            "exec",
            lab.netns(),
            env!("CARGO_BIN_EXE_sandtrace"),
        ])
        .args(["list", "--json", "--provider", "daytona", "--docker-socket"])
        .arg(docker.socket())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(CANARY), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let [target] = json["sandboxes"].as_array().unwrap().as_slice() else {
        panic!("{text}")
    };
    assert_eq!(target["sandbox_id"], id);
    assert_eq!(target["agent_id"], "coder");
    assert_eq!(target["evidence_tier"], "kernel");
    let found = &target["found"];
    assert_eq!(found["template"], "python-3.12");
    assert_eq!(found["labels"]["daytona.organization_id"], "org-1");
    assert_eq!(found["taps"][0]["interface"], sandbox.interface(), "{text}");
    assert_eq!(found["disks"][0]["kind"], "overlay");
    assert_eq!(found["disks"][0]["path"], sandbox.upper().to_str().unwrap());
    assert_eq!(found["vmm"]["pid"], sandbox.pid());
}
