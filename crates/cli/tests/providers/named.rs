//! Ids as long as they may be, longer, and such as would lead out of a
//! directory, of every provider whose ids are but words.

use crate::containers::{apart, made_in, sandtrace};
use crate::fleet::{Watch, of_type, records, trails_of};
use crate::support::{Alone, config, lab};
use sandtrace_lab::world::World;
use sandtrace_lab::{Docker, NamespaceSandbox, StandIn, StandInConfig, StandInForm};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const ESCAPE: &str = "../../escape";

/// An id, and whether a sandbox may bear it.
fn ids(lab: &Alone, kind: &str) -> [(String, bool); 4] {
    let long = |length: usize| {
        let mut id = format!("i{}{kind}{length}", lab.id());
        id.extend(std::iter::repeat_n('x', length - id.len()));
        id
    };
    [
        (ESCAPE.to_owned(), false),
        (long(64), true),
        (long(128), true),
        (long(129), false),
    ]
}

/// Ended with the test, however that ends.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A real one without a machine, but with a tap.
fn qemu(lab: &Alone, id: &str, tap: &str) -> Qemu {
    let mut ip = Command::new("ip");
    let add = ["-n", lab.netns(), "tuntap", "add", tap, "mode", "tap"];
    assert!(ip.args(add).status().unwrap().success());
    let mut qemu = Command::new("ip");
    qemu.args(["netns", "exec", lab.netns(), "qemu-system-x86_64"]);
    qemu.args(["-M", "none", "-S", "-accel", "tcg", "-display", "none"]);
    qemu.args(["-nodefaults", "-name", id, "-netdev"]);
    qemu.arg(format!("tap,id=n0,ifname={tap},script=no,downscript=no"));
    Qemu(qemu.stdin(Stdio::null()).spawn().unwrap())
}

fn firecracker(lab: &Alone, id: &str, number: usize) -> StandIn {
    let file = format!("i{}{number}", lab.id());
    let config = StandInConfig {
        sandbox_id: id.to_owned(),
        ..config(lab, StandInForm::Firecracker, &file)
    };
    lab.stand_in(&config).unwrap()
}

fn container(
    lab: &Alone,
    world: &World,
    docker: &Docker,
    (id, third): (&str, u8),
) -> NamespaceSandbox {
    let sandbox_id = format!("box{third}");
    let names = (id, &*sandbox_id);
    let (sandbox, container) = made_in(lab, world, apart(world, third), names);
    docker.add(container);
    sandbox
}

/// Names of what is in a directory, which is files of those sandboxes alone.
#[track_caller]
fn check_files(dir: &Path, ids: &[(String, u32)]) {
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_ours = ids.iter().any(|(id, _)| name.starts_with(&**id));
        // Locks and the like are the program's own.
        assert!(is_ours || !name.ends_with(".jsonl"), "{name}");
    }
}

#[test]
fn ids_of_every_kind_are_taken_or_replaced() {
    let Some(lab) = lab("ids_of_every_kind_are_taken_or_replaced") else {
        return;
    };
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let (mut vmms, mut qemus, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
    let mut expected = Vec::new();
    let mut expect = |provider: &str, id: String, may: bool, pid: u32| {
        let id = if may { id } else { format!("{provider}-{pid}") };
        expected.push((id, pid));
    };
    for (number, (id, may)) in ids(&lab, "f").into_iter().enumerate() {
        let vmm = firecracker(&lab, &id, number);
        expect("firecracker", id, may, vmm.pid());
        vmms.push(vmm);
    }
    for (number, (id, may)) in ids(&lab, "q").into_iter().enumerate() {
        let qemu = qemu(&lab, &id, &format!("qtap{number}"));
        expect("qemu", id, may, qemu.0.id());
        qemus.push(qemu);
    }
    for (third, (id, may)) in (1..).zip(ids(&lab, "d")) {
        let sandbox = container(&lab, &world, &docker, (&id, third));
        expect("daytona", id, may, sandbox.pid());
        boxes.push(sandbox);
    }
    let frames = lab.dir().join("frames");
    let socket = docker.socket().to_str().unwrap();
    let kinds = [
        "--provider",
        "firecracker,qemu,daytona",
        "--syscalls",
        "off",
    ];
    let more = [
        "--docker-socket",
        socket,
        "--evidence-pcap",
        frames.to_str().unwrap(),
    ];
    let watch = Watch::over(sandtrace(&lab), &lab, &[&kinds[..], &more].concat());
    for (id, _) in &expected {
        watch.await_trail(id, "sandbox_attached");
    }
    let trails = watch.trails.clone();
    watch.interrupt();
    for (id, pid) in &expected {
        let [trail] = &trails_of(&trails, id)[..] else {
            panic!("{id}: {:?}", trails_of(&trails, id))
        };
        let all = records(trail);
        assert!(
            all.iter().all(|record| record["sandbox_id"] == **id),
            "{id}"
        );
        let found = &of_type(&all, "sandbox_attached")[0]["payload"];
        assert_eq!(found["vmm"]["pid"], *pid, "{id}");
    }
    for dir in [&trails, &frames] {
        check_files(dir, &expected);
    }
    // As the lab's directories lie: where `../..` of theirs would lead.
    for dir in lab.dir().ancestors().take(2) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name();
            assert!(!name.to_string_lossy().starts_with("escape"), "{name:?}");
        }
    }
}
