//! One of each kind on one host at once: `list` shows all of them, and one
//! `watch --all` gives each its own trail.

use crate::fleet::{Watch, of_type, records};
use crate::support::{Alone, CANARY, config, lab, started};
use sandtrace_lab::world::World;
use sandtrace_lab::{
    Container, Docker, MicroVm, MicroVmConfig, NamespaceConfig, NamespaceSandbox, Network,
    Scenario, StandIn, StandInForm, make_image, scenario,
};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest wait for an agent's work.
const WORK: Duration = Duration::from_secs(60);

/// The kind that has no interface.
const LIBKRUN: &str = "libkrun";

/// Everything that runs, in the order in which it is ended.
struct Host {
    vmms: Vec<(String, &'static str, StandIn)>,
    container: (String, NamespaceSandbox),
    qemu: (String, MicroVm),
    docker: Docker,
    _world: World,
}

impl Host {
    fn start(lab: &Alone) -> Self {
        let world = World::start(lab.netns()).unwrap();
        let docker = lab.docker().unwrap();
        let name = |kind: &str| format!("i{}{kind}", lab.id());
        let container = container(lab, &world, &docker, &name("daytona"));
        let qemu = qemu(lab, &world, &name("qemu"));
        let forms = [
            (StandInForm::Firecracker, "plain", "firecracker"),
            (StandInForm::Jailed, "jailed", "firecracker"),
            (StandInForm::ConfigFile, "file", "firecracker"),
            (StandInForm::Containerd, "shim", "firecracker"),
            (StandInForm::E2b, "e2b", "e2b"),
            (StandInForm::CloudHypervisor, "ch", "cloud-hypervisor"),
            (StandInForm::Libkrun, "krun", LIBKRUN),
        ];
        let vmms = forms.map(|(form, kind, provider)| {
            let id = name(kind);
            let mut config = config(lab, form, &id);
            config.boot_args = "standin.frames=16 standin.gap_ms=50 standin.delay_ms=6000".into();
            let vmm = started(lab, &config);
            (id, provider, vmm)
        });
        Self {
            vmms: vmms.into(),
            container,
            qemu,
            docker,
            _world: world,
        }
    }

    /// Ids and kinds.
    fn expected(&self) -> Vec<(&str, &str)> {
        let vmms = self.vmms.iter();
        let mut all: Vec<_> = vmms.map(|(id, kind, _)| (id.as_str(), *kind)).collect();
        all.push((&self.container.0, "daytona"));
        all.push((&self.qemu.0, "qemu"));
        all
    }

    /// Where the other ends of the containers' links are is where Docker is.
    fn sandtrace(&self, lab: &Alone) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", lab.netns()]);
        command.arg(env!("CARGO_BIN_EXE_sandtrace"));
        command.env("SANDTRACE_DOCKER_SOCKET", self.docker.socket());
        command
    }
}

fn container(lab: &Alone, world: &World, docker: &Docker, id: &str) -> (String, NamespaceSandbox) {
    let network = Network::behind_tap(world.resolver());
    let sandbox = NamespaceConfig {
        sandbox_id: id.to_owned(),
        script: scenario::script(Scenario::StripeExfil, world, network),
        overlay: lab.overlay(&scenario::base_tree()).unwrap(),
    };
    let sandbox = lab.namespace(&sandbox).unwrap();
    docker.add(Container {
        name: id.to_owned(),
        pid: sandbox.pid(),
        upper: Some(sandbox.upper().to_owned()),
        env: vec![
            format!("DAYTONA_SANDBOX_ID={id}"),
            "DAYTONA_SANDBOX_SNAPSHOT=python-3.12".to_owned(),
            format!("OPENAI_API_KEY={CANARY}"),
        ],
        labels: vec![
            ("agent_id".to_owned(), "coder".to_owned()),
            ("com.example.token".to_owned(), CANARY.to_owned()),
        ],
    });
    (id.to_owned(), sandbox)
}

/// A real VM, beside the container in another network.
fn qemu(lab: &Alone, world: &World, id: &str) -> (String, MicroVm) {
    let network = Network {
        address: [172, 31, 255, 2].into(),
        prefix: 24,
        gateway: [172, 31, 255, 1].into(),
        ..Network::behind_tap(world.resolver())
    };
    let disk = lab.dir().join(format!("{id}.ext4"));
    make_image(&disk, 64 << 20, &scenario::base_tree()).unwrap();
    let script = scenario::script(Scenario::StripeExfil, world, network);
    let vm = lab.microvm(&MicroVmConfig::new(id, script, &disk)).unwrap();
    (id.to_owned(), vm)
}

fn check_list(host: &Host, lab: &Alone) {
    let output = host
        .sandtrace(lab)
        .args(["list", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains(CANARY), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let listed = json["sandboxes"].as_array().unwrap();
    for (id, kind) in host.expected() {
        let ours = listed.iter().filter(|it| it["sandbox_id"] == id);
        let ours: Vec<_> = ours.collect();
        assert_eq!(ours.len(), 1, "{id}: {text}");
        assert_eq!(ours[0]["found"]["provider"], kind);
        let count = |what: &str| ours[0]["found"][what].as_array().map_or(0, Vec::len);
        assert_eq!(count("taps"), usize::from(kind != LIBKRUN), "{id}: {text}");
        assert_eq!(count("disks"), 1, "{id}: {text}");
    }
    // As the documentation shows it.
    let output = host.sandtrace(lab).arg("list").output().unwrap();
    println!(
        "$ sandtrace list\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Its facts are its own, and the trail is whole.
fn check_trail(trail: &Path, id: &str, kinds: &[&str]) {
    let records = records(trail);
    assert!(records.iter().all(|record| record["sandbox_id"] == id));
    for kind in kinds {
        assert!(!of_type(&records, kind).is_empty(), "{id}: no {kind}");
    }
    let end = of_type(&records, "trail_end")[0];
    assert_eq!(end["payload"]["reason"], "sandbox_ended", "{id}");
    let verified = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
        .arg("verify")
        .arg(trail)
        .output()
        .unwrap();
    println!(
        "$ sandtrace verify {}\n{}",
        trail.file_name().unwrap().display(),
        String::from_utf8_lossy(&verified.stdout)
    );
    assert!(verified.status.success(), "{verified:?}");
}

/// What each kind's trail holds for sure.
fn work_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "daytona" | "qemu" => &["network_egress", "dns_query", "filesystem_change"],
        LIBKRUN => &["filesystem_change"],
        _ => &["network_egress"],
    }
}

#[test]
fn one_of_each_kind_side_by_side() {
    let Some(lab) = lab("one_of_each_kind_side_by_side") else {
        return;
    };
    let mut host = Host::start(&lab);
    check_list(&host, &lab);
    let watch = Watch::over(host.sandtrace(&lab), &lab, &["--scan-interval", "1s"]);
    let ids: Vec<String> = host
        .expected()
        .iter()
        .map(|(id, _)| (*id).to_owned())
        .collect();
    for id in &ids {
        watch.await_trail(id, "sandbox_attached");
    }
    host.container.1.resume().unwrap();
    host.qemu.1.resume().unwrap();
    host.container.1.wait(WORK).unwrap();
    host.qemu.1.wait(WORK).unwrap();
    for (id, kind, _) in &host.vmms {
        watch.await_trail(id, work_of(kind)[0]);
    }
    for (_, _, vmm) in &mut host.vmms {
        vmm.kill();
    }
    for (id, kind) in host.expected() {
        let trail = watch.await_trail(id, "trail_end");
        check_trail(&trail, id, work_of(kind));
    }
    println!(
        "$ sandtrace watch --all --trail-dir trails\n{}",
        watch.interrupt()
    );
}
