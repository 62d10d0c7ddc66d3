//! Disks by hand: how their bytes are kept, and what cannot be read of them.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use sandtrace_event::{AuditEvent, FileOp, GapCause, Payload, VerdictResult};

use crate::support::{Dir, POLICY, Running, assert_sealed, run, sandtrace};

/// An image of a tree with one file, by `mkfs.ext4`.
fn image(dir: &Dir, name: &str, content: &str) -> String {
    let tree = dir.dir(&format!("{name}.tree"));
    fs::write(dir.path(&format!("{name}.tree/note")), content).unwrap();
    let path = dir.text(name);
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-d", &tree, &path, "4M"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    path
}

/// The same disk as qcow2, under a name that does not say so.
fn as_qcow2(dir: &Dir, raw: &str, name: &str) -> String {
    let path = dir.text(name);
    let output = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2", raw, &path])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    path
}

/// What one look at a disk says of it.
#[track_caller]
fn watched(dir: &Dir, more: &[&str]) -> Vec<AuditEvent> {
    let trail = dir.text("trace.jsonl");
    for name in ["trace.jsonl", "trace.jsonl.checkpoint"] {
        // There is none before the first.
        let _none = fs::remove_file(dir.path(name));
    }
    let args = ["watch", "--sandbox-id", "box", "--trail", &trail];
    let watch = Running::start(sandtrace(&[&args[..], more].concat())).ready();
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    assert_sealed(&trail)
}

fn has_qemu_img() -> bool {
    let has = Command::new("qemu-img").arg("--version").output().is_ok();
    assert!(has || std::env::var_os("CI").is_none(), "no qemu-img");
    if !has {
        println!("skipped: there is no qemu-img");
    }
    has
}

/// Names mislead: a raw disk by the name of a qcow2 image, and the other way round.
#[test]
fn formats_are_those_that_were_said() {
    if !has_qemu_img() {
        return;
    }
    let dir = Dir::new();
    let base = image(&dir, "odd.qcow2", "before");
    let now = as_qcow2(&dir, &image(&dir, "now.raw", "and after"), "now.img");
    let formats = ["--format", "qcow2", "--base-format", "raw"];
    let args = ["--disk", &now, "--base", &base];
    let events = watched(&dir, &[&args[..], &formats].concat());
    let changes: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.payload {
            Payload::FilesystemChange(change) => Some((&*change.path, change.op)),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [("/note", FileOp::Modified)]);
    run(&["watch", "--sandbox-id", "box", "--format", "raw"]).expect(64);
}

/// A disk that holds nothing readable: whatever was written, the policy cannot have covered it.
#[test]
fn a_disk_that_cannot_be_read_is_an_anomaly() {
    if !has_qemu_img() {
        return;
    }
    let dir = Dir::new();
    let disk = as_qcow2(&dir, &image(&dir, "disk.raw", "x"), "disk.img");
    let gap = |events: &[AuditEvent]| {
        let gap = events.iter().find_map(|event| match &event.payload {
            Payload::CaptureGap(gap) => Some((gap.clone(), event.verdict.clone())),
            _ => None,
        });
        gap.unwrap()
    };
    let events = watched(&dir, &["--disk", &disk, "--policy", POLICY]);
    let (found, verdict) = gap(&events);
    assert_eq!(found.cause, GapCause::DiskUnreadable);
    assert!(found.detail.contains("the whole file system"), "{found:?}");
    let verdict = verdict.unwrap();
    assert_eq!(verdict.result, VerdictResult::Anomaly);
    assert_eq!(verdict.policy_rule.as_deref(), Some("builtin:unreadable"));
    let trail = dir.text("trace.jsonl");
    let again = run(&["verify", &trail, "--against", POLICY]).expect(5);
    assert!(again.stdout.contains(&disk), "{again:?}");
    // Without a policy nothing is judged.
    assert_eq!(gap(&watched(&dir, &["--disk", &disk])).1, None);
}
