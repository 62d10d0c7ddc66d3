//! One of each kind on one host at once: `list` shows all of them, and one
//! `watch --all` gives each its own trail. And what is named by hand.

use crate::containers::{apart, made_in};
use crate::fleet::{Watch, of_type, records};
use crate::suite::{Expected, frames_from};
use crate::support::{Alone, CANARY, config, ended, lab, started};
use rustix::process::{Pid, Signal, kill_process};
use sandtrace_lab::world::World;
use sandtrace_lab::{
    Docker, MicroVm, MicroVmConfig, NamespaceSandbox, Network, Scenario, StandIn, StandInForm,
    make_image, scenario,
};
use sandtrace_provider::ProviderKind;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for an agent's work.
const WORK: Duration = Duration::from_secs(60);

/// Frames of each stand-in.
const FRAMES: u64 = 16;

/// Everything that runs, in the order in which it is ended.
struct Host {
    vmms: Vec<(Expected, StandIn)>,
    container: (Expected, NamespaceSandbox),
    qemu: (Expected, MicroVm),
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
            (StandInForm::Firecracker, "plain"),
            (StandInForm::Jailed, "jailed"),
            (StandInForm::ConfigFile, "file"),
            (StandInForm::Containerd, "shim"),
            (StandInForm::E2b, "e2b"),
            (StandInForm::CloudHypervisor, "ch"),
            (StandInForm::Libkrun, "krun"),
        ];
        let vmms = forms.map(|(form, kind)| {
            let id = name(kind);
            let mut config = config(lab, form, &id);
            config.boot_args =
                format!("standin.frames={FRAMES} standin.gap_ms=50 standin.delay_ms=8000");
            let vmm = started(lab, &config);
            (Expected::stand_in(form, &id, &vmm), vmm)
        });
        Self {
            vmms: vmms.into(),
            container,
            qemu,
            docker,
            _world: world,
        }
    }

    fn expected(&self) -> Vec<&Expected> {
        let vmms = self.vmms.iter().map(|(expected, _)| expected);
        vmms.chain([&self.container.0, &self.qemu.0]).collect()
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

fn container(
    lab: &Alone,
    world: &World,
    docker: &Docker,
    id: &str,
) -> (Expected, NamespaceSandbox) {
    let network = Network::behind_tap(world.resolver());
    let (sandbox, mut container) = made_in(lab, world, network, (id, id));
    container.env.extend([
        "DAYTONA_SANDBOX_SNAPSHOT=python-3.12".to_owned(),
        format!("OPENAI_API_KEY={CANARY}"),
    ]);
    container.labels = vec![
        ("agent_id".to_owned(), "coder".to_owned()),
        ("com.example.token".to_owned(), CANARY.to_owned()),
    ];
    docker.add(container);
    (Expected::container(id, &sandbox), sandbox)
}

/// A real VM, beside the container in another network.
pub(crate) fn qemu(lab: &Alone, world: &World, id: &str) -> (Expected, MicroVm) {
    let network = apart(world, 255);
    let disk = lab.dir().join(format!("{id}.ext4"));
    make_image(&disk, 64 << 20, &scenario::base_tree()).unwrap();
    let script = scenario::script(Scenario::StripeExfil, world, network);
    let vm = lab.microvm(&MicroVmConfig::new(id, script, &disk)).unwrap();
    (Expected::qemu(id, &vm), vm)
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
    for expected in host.expected() {
        let id = expected.id.as_str();
        let ours = listed.iter().filter(|it| it["sandbox_id"] == id);
        let ours: Vec<_> = ours.collect();
        assert_eq!(ours.len(), 1, "{id}: {text}");
        expected.check(&serde_json::from_value(ours[0]["found"].clone()).unwrap());
    }
    // As the documentation shows it.
    let output = host.sandtrace(lab).arg("list").output().unwrap();
    println!(
        "$ sandtrace list\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// What each kind's trail holds for sure.
fn work_of(kind: ProviderKind) -> &'static [&'static str] {
    match kind {
        ProviderKind::Daytona | ProviderKind::Qemu => {
            &["network_egress", "dns_query", "filesystem_change"]
        }
        ProviderKind::Libkrun => &["filesystem_change"],
        _ => &["network_egress"],
    }
}

#[track_caller]
fn check_trail(trail: &Path, expected: &Expected, frames: Option<u64>) {
    expected.check_trail(trail, frames, "sandbox_ended");
    let records = records(trail);
    for kind in work_of(expected.provider) {
        let id = &expected.id;
        assert!(!of_type(&records, kind).is_empty(), "{id}: no {kind}");
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
    for expected in host.expected() {
        watch.await_trail(&expected.id, "sandbox_attached");
    }
    host.container.1.resume().unwrap();
    host.qemu.1.resume().unwrap();
    host.container.1.wait(WORK).unwrap();
    host.qemu.1.wait(WORK).unwrap();
    for (expected, _) in &host.vmms {
        watch.await_trail(&expected.id, work_of(expected.provider)[0]);
    }
    for (expected, vmm) in &mut host.vmms {
        await_that(|| expected.link.is_none() || frames_from(vmm.netns(), "tap0") == FRAMES);
        vmm.kill();
    }
    for (expected, _) in &host.vmms {
        let trail = watch.await_trail(&expected.id, "trail_end");
        check_trail(&trail, expected, Some(FRAMES));
    }
    // Nothing had come of its tap before it was attached. What the kernel sends
    // for a container whose process has ended is in no trail.
    let by_qemu = frames_from(lab.netns(), host.qemu.1.tap());
    for (expected, frames) in [(&host.container.0, None), (&host.qemu.0, Some(by_qemu))] {
        let trail = watch.await_trail(&expected.id, "trail_end");
        check_trail(&trail, expected, frames);
    }
    println!(
        "$ sandtrace watch --all --trail-dir trails\n{}",
        watch.interrupt()
    );
}

#[track_caller]
fn await_that(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "it is never so");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A watch of one sandbox, of which everything is named by hand.
fn by_hand(lab: &Alone, vmm: &StandIn, id: &str, trail: &Path, more: &[&str]) -> Child {
    let disk = vmm.disk().to_str().unwrap();
    let tap = ["--tap", "tap0", "--netns", vmm.netns(), "--disk", disk];
    let child = Command::new(env!("CARGO_BIN_EXE_sandtrace"))
        .args(["watch", "--syscalls", "off", "--sandbox-id", id])
        .args(tap)
        .args(more)
        .env("SANDTRACE_TRAIL", trail)
        .current_dir(lab.dir())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    await_that(|| fs::read_to_string(trail).is_ok_and(|it| it.contains("sandbox_attached")));
    child
}

#[test]
fn one_that_is_named_by_hand() {
    let Some(lab) = lab("one_that_is_named_by_hand") else {
        return;
    };
    let id = format!("i{}hand", lab.id());
    let form = StandInForm::Firecracker;
    let mut config = config(&lab, form, &id);
    config.boot_args = format!("standin.frames={FRAMES} standin.gap_ms=20 standin.delay_ms=100");
    let mut vmm = lab.stand_in(&config).unwrap();
    let known = Expected {
        id: "known".to_owned(),
        agent: Some("by-hand"),
        ..Expected::stand_in(form, &id, &vmm)
    };
    // Without a process it is whatever has that interface and that disk.
    let bare = Expected {
        id: "bare".to_owned(),
        provider: ProviderKind::Manual,
        process: None,
        missing: &[],
        ..known.clone()
    };
    let trails = ["known.jsonl", "bare.jsonl"].map(|name| lab.dir().join(name));
    let pid = vmm.pid().to_string();
    let more = ["--agent-id", "by-hand", "--pid", pid.as_str()];
    let mut of_known = by_hand(&lab, &vmm, "known", &trails[0], &more);
    let mut of_bare = by_hand(&lab, &vmm, "bare", &trails[1], &more[..2]);
    vmm.start().unwrap();
    await_that(|| frames_from(vmm.netns(), "tap0") == FRAMES);
    vmm.kill();
    assert!(ended(&mut of_known).success());
    kill_process(Pid::from_child(&of_bare), Signal::INT).unwrap();
    assert!(ended(&mut of_bare).success());
    known.check_trail(&trails[0], Some(FRAMES), "sandbox_ended");
    bare.check_trail(&trails[1], Some(FRAMES), "interrupted");
}
