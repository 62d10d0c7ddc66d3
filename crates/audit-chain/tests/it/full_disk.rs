//! A file system that really is full: a small tmpfs in a mount namespace of
//! its own, in which this test runs itself again.

use crate::sample::{dns, identity, judged, lines, start};
use sandtrace_audit_chain::{Outcome, TrailWriter, VerifyOptions, WriteError, verify};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

const INSIDE: &str = "SANDTRACE_TEST_FULL_DISK";

#[test]
fn a_full_disk_leaves_whole_lines_and_says_so() {
    if let Some(dir) = env::var_os(INSIDE) {
        fill(&PathBuf::from(dir).join("trace.jsonl"));
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a_full_disk_leaves_whole_lines_and_says_so: not root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=256k sandtrace-test \"$1\" && shift && exec \"$@\"";
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "sh",
        ])
        .arg(dir.path())
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "full_disk::a_full_disk_leaves_whole_lines_and_says_so",
        ])
        .env(INSIDE, dir.path())
        .status();
    assert!(status.unwrap().success());
}

fn fill(path: &std::path::Path) {
    let mut writer = TrailWriter::create(path, identity("trace-001")).unwrap();
    writer.append(judged(0, start(), None), 0).unwrap();
    writer.commit().unwrap();
    let mut good = 0;
    let error = loop {
        while !writer.commit_due(0) {
            writer.append(judged(1, dns(), None), 0).unwrap();
        }
        match writer.commit() {
            Ok(_) => good = fs::metadata(path).unwrap().len(),
            Err(error) => break error,
        }
    };
    let text = error.to_string();
    let WriteError::Full { acknowledged, .. } = error else {
        panic!("{text}");
    };
    assert!(
        text.contains("trace.jsonl") && text.contains("no space left"),
        "{text}"
    );
    assert_eq!(acknowledged, good);
    // Not one byte of the failed commit is there, and no more will come.
    let trail = fs::read(path).unwrap();
    assert_eq!(u64::try_from(trail.len()).unwrap(), good);
    assert!(matches!(writer.commit(), Err(WriteError::Failed { .. })));
    drop(writer);
    assert!(lines(&trail).len() > 100);
    let live = VerifyOptions {
        live: true,
        threads: None,
        ..VerifyOptions::default()
    };
    let report = verify(&trail[..], &live).unwrap();
    assert_eq!(report.outcome, Outcome::Intact { sealed: false });
    assert_eq!(report.partial_bytes, 0);
}
