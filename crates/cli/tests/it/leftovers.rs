//! A demo that is broken off leaves nothing behind but what it was told to keep.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::{Dir, Kind, Running, events, eventually, privileged, sandtrace};

#[test]
fn an_interrupted_microvm() {
    check(Kind::MicroVm, Signal::INT, "agent ▸ Reads");
}

#[test]
fn a_terminated_microvm() {
    check(Kind::MicroVm, Signal::TERM, "sandbox: ");
}

#[test]
fn interrupted_namespaces() {
    check(Kind::Namespace, Signal::INT, "sandbox: ");
}

/// Interrupts the demo as soon as it has said `moment`.
#[track_caller]
fn check(kind: Kind, signal: Signal, moment: &str) {
    if !privileged(&format!("an interrupted {}", kind.word())) {
        return;
    }
    let dir = Dir::new();
    let out = dir.text("out");
    let mut command = sandtrace(&["demo", "persist", "--sandbox", kind.word(), "--keep", &out]);
    command.process_group(0);
    let demo = Running::start(command);
    let pid = demo.pid();
    let said = eventually("the demo gets there", || {
        let said = demo.stdout();
        said.contains(moment).then_some(said)
    });
    demo.signal_group(signal);
    let id = lab_id(&eventually("the sandbox is described", || {
        Some(demo.stdout()).filter(|said| said.contains("/stl-"))
    }));
    let ran = demo.wait();
    // The agent may have ended before the signal came; what is left must be whole then too.
    let code = if ran.stdout.contains("Run 2") {
        ran.code
    } else {
        0
    };
    let ran = ran.expect(code);
    assert!(said.len() <= ran.stdout.len());
    let trail = events(dir.path("out/run-1.jsonl"));
    assert_eq!(trail.last().unwrap().event_type.as_str(), "trail_end");
    assert_nothing_left(&id, pid);
}

#[track_caller]
fn lab_id(said: &str) -> String {
    let (_, rest) = said.split_once("/stl-").unwrap();
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}

#[track_caller]
fn assert_nothing_left(id: &str, pid: u32) {
    let name = format!("stl-{id}");
    for dir in ["/run/netns", "/tmp", "/var/tmp", "/run", "/dev/shm"] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(&name))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let entry = format!("/run/sandtrace-lab/{id}.json");
    assert!(!Path::new(&entry).exists(), "{entry}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&name));
    let left = eventually_no_process(&name);
    assert!(left.is_none(), "{left:?} of {pid}");
}

/// A process whose command line or root names the lab.
fn eventually_no_process(name: &str) -> Option<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.map(|entry| entry.path()).find_map(|process| {
        let command = fs::read(process.join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        (command.contains(name) || mounts.contains(name)).then_some(command)
    })
}

/// `sandtrace demo … | head -1`: the reader leaves early, and the demo cleans up and is quiet.
#[test]
fn a_demo_whose_reader_leaves() {
    if !privileged("a demo whose reader leaves") {
        return;
    }
    let dir = Dir::new();
    let out = dir.text("out");
    let (reader, writer) = std::io::pipe().unwrap();
    let args = [
        "demo",
        "stripe-exfil",
        "--sandbox",
        "namespace",
        "--keep",
        &out,
    ];
    let demo = Running::start_into(sandtrace(&args), writer);
    let mut said = Vec::new();
    let mut reader = std::io::BufReader::new(reader);
    let described = |said: &[u8]| String::from_utf8_lossy(said).contains("/stl-");
    while !described(&said) {
        let read = std::io::BufRead::read_until(&mut reader, b'\n', &mut said).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&said));
    }
    drop(reader);
    let pid = demo.pid();
    demo.wait().expect(0).quiet();
    assert_nothing_left(&lab_id(&String::from_utf8_lossy(&said)), pid);
}
