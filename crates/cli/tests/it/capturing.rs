//! `watch --capture`: which way is chosen, what the trail says of it, and that
//! `doctor` says the same beforehand.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use sandtrace_event::{BackendInForce, Layer, Payload};

use crate::support::{Dir, Link, Ran, Running, assert_sealed, finish, privileged, state_dir};

/// The program as root without some capabilities, in the link's namespace: to
/// enter it from outside takes one of those.
fn without(link: &Link, capabilities: &str, args: &[String]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", link.lab.netns(), "setpriv"]);
    command.arg(format!("--bounding-set={capabilities}"));
    command.arg(env!("CARGO_BIN_EXE_sandtrace")).args(args);
    command.env("SANDTRACE_STATE_DIR", state_dir());
    command
}

fn watching(trail: &str, how: Option<&str>) -> Vec<String> {
    let args = [
        "watch",
        "--sandbox-id",
        "box",
        "--tap",
        Link::NAME,
        "--trail",
        trail,
    ];
    let how = how.into_iter().flat_map(|how| ["--capture", how]);
    let args = args.into_iter().chain(how).map(str::to_owned);
    args.chain(["--syscalls", "off"].map(str::to_owned))
        .collect()
}

/// A watch of all sandboxes of a kind that this host has none of.
fn all_of_nothing(dir: &Dir) -> Vec<String> {
    let trails = dir.text("trails");
    let args = [
        "watch",
        "--all",
        "--trail-dir",
        &trails,
        "--provider",
        "e2b",
    ];
    let args = [&args[..], &["--syscalls", "off"]].concat();
    args.into_iter().map(str::to_owned).collect()
}

/// What captures, as the trail says, and that it did.
#[track_caller]
fn chosen(link: &Link, capabilities: &str, how: Option<&str>) -> BackendInForce {
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let args = watching(&trail, how);
    let watch = Running::start(without(link, capabilities, &args)).ready();
    link.send(&[&[2; 12][..], &[0x88, 0xb5], &[7; 50]].concat())
        .unwrap();
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let events = assert_sealed(&trail);
    let caught = events.iter().any(|event| {
        matches!(&event.payload, Payload::NetworkEgress(flow) if flow.ether_type == Some(0x88b5))
    });
    assert!(caught, "{events:#?}");
    let Payload::TrailStart(start) = &events[0].payload else {
        panic!("{:?}", events[0])
    };
    let mut capture = start.capture.iter();
    capture
        .find(|it| it.layer == Layer::Network)
        .unwrap()
        .clone()
}

fn doctor(link: &Link, capabilities: &str) -> Ran {
    let doctor = without(link, capabilities, &["doctor".to_owned()]);
    finish(doctor).expect(0)
}

#[track_caller]
fn check(found: &BackendInForce, backend: &str, reason: &str) {
    assert_eq!(found.backend, backend, "{found:?}");
    assert!(found.reason.contains(reason), "{found:?}");
}

#[track_caller]
fn says(doctor: &Ran, line: &str, reason: &str) {
    let told = doctor.stdout.lines().find(|it| it.starts_with(line));
    assert!(told.is_some_and(|it| it.contains(reason)), "{doctor:?}");
}

#[test]
fn the_way_that_works_is_chosen_and_told() {
    if !privileged("which capture is chosen") {
        return;
    }
    let link = Link::new();
    let all = "+all";
    check(&chosen(&link, all, None), "af_packet", "works here");
    check(&chosen(&link, all, Some("auto")), "af_packet", "works here");
    check(
        &chosen(&link, all, Some("af-packet")),
        "af_packet",
        "asked for",
    );
    check(&chosen(&link, all, Some("ebpf")), "ebpf", "asked for");
    let well = doctor(&link, all);
    says(&well, "yes  network: packet ring", "");
    says(&well, "yes  network: eBPF", "`auto` does with `--all`");
}

#[test]
fn without_packet_sockets_there_is_no_capture() {
    if !privileged("capture without CAP_NET_RAW") {
        return;
    }
    let link = Link::new();
    let no_sockets = "-net_raw";
    let doctor = doctor(&link, no_sockets);
    says(&doctor, "no   network: packet ring", "CAP_NET_RAW");
    says(&doctor, "no   network: eBPF", "CAP_NET_RAW");
    let dir = Dir::new();
    for capture in [None, Some("af-packet"), Some("ebpf")] {
        let args = watching(&dir.text("trace.jsonl"), capture);
        finish(without(&link, no_sockets, &args))
            .expect(77)
            .one_line(&["CAP_NET_RAW"]);
    }
}

#[test]
fn without_programs_the_ring_is_chosen_and_asking_for_them_fails() {
    if !privileged("capture without CAP_BPF") {
        return;
    }
    let link = Link::new();
    let no_programs = "-bpf,-sys_admin,-perfmon";
    check(&chosen(&link, no_programs, None), "af_packet", "works here");
    says(&doctor(&link, no_programs), "no   network: eBPF", "CAP_BPF");
    let dir = Dir::new();
    let args = watching(&dir.text("trace.jsonl"), Some("ebpf"));
    finish(without(&link, no_programs, &args))
        .expect(77)
        .one_line(&["CAP_BPF"]);
    // Many sandboxes are watched all the same, by rings.
    let mut child = without(&link, no_programs, &all_of_nothing(&dir))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    let said: Vec<_> = said.lines().map(Result::unwrap).take(2).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said[0].contains("CAP_BPF") && said[0].ends_with("sandboxes get packet rings"));
    assert!(said[1].starts_with("watching every sandbox"), "{said:?}");
    // Nothing works: what it says is about the way that `auto` prefers.
    let neither = "-net_raw,-bpf,-sys_admin,-perfmon";
    let args = watching(&dir.text("trace.jsonl"), None);
    finish(without(&link, neither, &args))
        .expect(77)
        .one_line(&["CAP_NET_RAW"]);
}
