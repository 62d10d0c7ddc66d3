//! Nothing that is written about a sandbox holds a secret of it: canaries in
//! variables, arguments, metadata, labels, kernel command lines.

use crate::containers::{made_in, sandtrace};
use crate::fleet::Watch;
use crate::support::{Alone, CANARY, config, lab, started};
use sandtrace_lab::world::World;
use sandtrace_lab::{Docker, NamespaceSandbox, Network, StandIn, StandInForm};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ended with the test, however that ends.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A real one without a machine, which has a tap and a secret.
fn qemu(lab: &Alone, id: &str) -> Qemu {
    let mut ip = Command::new("ip");
    let tap = ["-n", lab.netns(), "tuntap", "add", "qtap0", "mode", "tap"];
    assert!(ip.args(tap).status().unwrap().success());
    let mut qemu = Command::new("ip");
    qemu.args(["netns", "exec", lab.netns(), "qemu-system-x86_64"]);
    qemu.args(["-M", "none", "-S", "-accel", "tcg", "-display", "none"]);
    qemu.args(["-nodefaults", "-name", id, "-object"]);
    qemu.arg(format!("secret,id=s0,data={CANARY}"));
    qemu.args(["-netdev", "tap,id=n0,ifname=qtap0,script=no,downscript=no"]);
    let child = qemu.env("TOKEN", CANARY).stdin(Stdio::null()).spawn();
    Qemu(child.unwrap())
}

fn stand_in(lab: &Alone, form: StandInForm) -> (String, StandIn) {
    let id = format!("i{}{form:?}", lab.id()).to_lowercase();
    let mut config = config(lab, form, &id);
    config.boot_args += &format!(" agent.token={CANARY}");
    let secrets = [
        ("env", json!({"OPENAI_API_KEY": CANARY})),
        ("envVars", json!([CANARY])),
        ("traffic_access_token", json!(CANARY)),
        (CANARY, json!("a name may be one, too")),
    ];
    for (name, value) in secrets {
        config.metadata[name] = value;
    }
    let vmm = started(lab, &config);
    (id, vmm)
}

fn container(lab: &Alone, world: &World, docker: &Docker, id: &str) -> NamespaceSandbox {
    let network = Network::behind_tap(world.resolver());
    let (sandbox, mut container) = made_in(lab, world, network, (id, id));
    container.env.extend([
        format!("DAYTONA_SANDBOX_AUTH_TOKEN={CANARY}"),
        format!("OPENAI_API_KEY={CANARY}"),
    ]);
    container.labels = vec![
        ("daytona.access_token".to_owned(), CANARY.to_owned()),
        ("com.example.token".to_owned(), CANARY.to_owned()),
        (format!("{CANARY}.label"), "x".to_owned()),
    ];
    docker.add(container);
    sandbox
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let inner = paths.flat_map(|path| {
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    });
    inner.collect()
}

#[track_caller]
fn check_file(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| line.contains(CANARY));
    assert!(line.is_none(), "{}: {line:?}", path.display());
    assert!(!path.to_string_lossy().contains(CANARY), "{path:?}");
}

/// Whether a process has the canary where anybody who looks finds it.
fn shows(pid: u32) -> bool {
    let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let both = [file("environ"), file("cmdline")].concat();
    String::from_utf8_lossy(&both).contains(CANARY)
}

#[test]
fn no_secret_of_a_sandbox_is_written_anywhere() {
    let Some(lab) = lab("no_secret_of_a_sandbox_is_written_anywhere") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let name = |kind: &str| format!("i{}{kind}", lab.id());
    let mut box_ = container(&lab, &world, &docker, &name("box"));
    let qemu = qemu(&lab, &name("qemu"));
    let forms = StandInForm::ALL.into_iter().chain([StandInForm::Libkrun]);
    let vmms: Vec<_> = forms.map(|form| (form, stand_in(&lab, form))).collect();
    assert!(shows(qemu.0.id()));
    for (form, (_, vmm)) in &vmms {
        assert!(shows(vmm.pid()) || *form == StandInForm::Jailed, "{form:?}");
    }
    let socket = docker.socket().to_str().unwrap();
    let events = lab.dir().join("events.jsonl");
    let more = ["--docker-socket", socket, "-o", events.to_str().unwrap()];
    let often = ["--scan-interval", "300ms", "--syscall-interval", "300ms"];
    let watch = Watch::over(sandtrace(&lab), &lab, &[&more[..], &often].concat());
    let ids = vmms.iter().map(|(_, (id, _))| id.clone());
    let ids: Vec<_> = ids.chain([name("box"), name("qemu")]).collect();
    for id in &ids {
        watch.await_trail(id, "sandbox_attached");
    }
    box_.resume().unwrap();
    box_.wait(Duration::from_secs(60)).unwrap();
    for format in [&["list"][..], &["list", "--json"]] {
        let mut list = sandtrace(&lab);
        let output = list.args(format).args(&more[..2]).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains(CANARY), "{said}");
        // The container's process has ended by now.
        let mut listed = ids.iter().filter(|id| **id != name("box"));
        assert!(listed.all(|id| said.contains(id)), "{said}");
    }
    drop((vmms, qemu, box_));
    for id in &ids {
        watch.await_trail(id, "trail_end");
    }
    let trails = watch.trails.clone();
    // What it says is looked through there.
    watch.interrupt();
    let written = files(&trails);
    assert!(written.len() >= ids.len(), "{written:?}");
    for path in written.iter().chain([&events]) {
        check_file(path);
    }
    if let Some(state) = std::env::var_os("SANDTRACE_STATE_DIR") {
        files(Path::new(&state))
            .iter()
            .for_each(|path| check_file(path));
    }
}
