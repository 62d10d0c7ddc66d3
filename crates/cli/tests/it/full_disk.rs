//! A full disk under the trail: a small tmpfs in a mount namespace of the program's own.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::{Dir, POLICY, Running, lines, privileged, run, state_dir};

/// Mounts the small disk, runs the program and takes the trail out of it.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=64k sandtrace-test "$1/small"
code=0
"$2" watch --sandbox-id box --overlay "$1/upper" --policy "$3" --scan-interval 20ms \
    --trail "$1/small/trace.jsonl" -o "$1/shown.jsonl" || code=$?
cp "$1/small/trace.jsonl" "$1/trace.jsonl"
exit $code
"#;

#[test]
fn a_full_disk_ends_the_watch_and_spoils_nothing() {
    if !privileged("a full disk ends the watch and spoils nothing") {
        return;
    }
    let dir = Dir::new();
    let upper = dir.path(&dir.dir("upper"));
    dir.dir("small");
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        SCRIPT,
        "sh",
    ]);
    command.args([
        dir.at().as_os_str(),
        env!("CARGO_BIN_EXE_sandtrace").as_ref(),
    ]);
    command.arg(POLICY).env("SANDTRACE_STATE_DIR", state_dir());
    let watch = Running::start(command).ready();
    // A little at a time, so that much is acknowledged before the disk is full.
    for number in 0..400 {
        fs::write(upper.join(format!("file-{number:03}")), "fills the trail").unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let ran = watch.wait().expect(74);
    let last = ran.stderr.lines().last().unwrap();
    for part in ["sandtrace: ", "trace.jsonl", "no space left"] {
        assert!(last.contains(part), "no {part:?} in {}", ran.stderr);
    }
    assert!(
        !ran.stderr.contains("next: sandtrace verify"),
        "{}",
        ran.stderr
    );

    // What was shown was acknowledged, and all of that is there, whole.
    let (trail, shown) = (
        lines(dir.path("trace.jsonl")),
        lines(dir.path("shown.jsonl")),
    );
    assert_eq!(trail, shown);
    assert!(trail.len() > 30, "{}", trail.len());
    let bytes = fs::read(dir.path("trace.jsonl")).unwrap();
    assert!(bytes.ends_with(b"\n") && bytes.len() <= 64 << 10);
    let verified = run(&["verify", &dir.text("trace.jsonl")]).expect(2).quiet();
    assert!(
        verified.stdout.starts_with("INCOMPLETE"),
        "{}",
        verified.stdout
    );
}
