//! Whatever is changed in a trail, `verify` does not call it valid.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{Dir, privileged, run, sandtrace};

/// A demo's trail, and copies of it that somebody edited.
struct Trail {
    dir: Dir,
    bytes: Vec<u8>,
}

impl Trail {
    fn new() -> Self {
        let dir = Dir::new();
        let out = dir.text("out");
        run(&[
            "demo",
            "stripe-exfil",
            "--sandbox",
            "namespace",
            "--keep",
            &out,
        ])
        .expect(0);
        let bytes = fs::read(dir.path("out/trace.jsonl")).unwrap();
        Self { dir, bytes }
    }

    /// What `verify` says of `bytes`: its code, which its JSON repeats.
    #[track_caller]
    fn verify(&self, name: &str, bytes: &[u8]) -> i32 {
        let path = self.dir.file(name, bytes);
        let output = sandtrace(&["verify", &path, "--json"])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let code = output.status.code().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["exit_code"], code);
        assert_ne!(json["status"], if code == 0 { "tampered" } else { "valid" });
        code
    }

    fn last_line(&self) -> usize {
        let body = &self.bytes[..self.bytes.len() - 1];
        1 + body.iter().rposition(|byte| *byte == b'\n').unwrap()
    }
}

#[test]
fn any_byte() {
    if !privileged("any byte") {
        return;
    }
    let trail = Trail::new();
    assert_eq!(trail.verify("as-it-was", &trail.bytes), 0);
    let last = trail.last_line();
    let sampled = (0..last).step_by(last / 300);
    let places: Vec<usize> = sampled.chain(last..trail.bytes.len()).collect();
    std::thread::scope(|scope| {
        for part in places.chunks(places.len().div_ceil(2)) {
            let trail = &trail;
            scope.spawn(move || {
                let name = format!("edited-{}", part[0]);
                for &place in part {
                    check_byte(trail, &name, place);
                }
            });
        }
    });
}

#[track_caller]
fn check_byte(trail: &Trail, name: &str, place: usize) {
    let mut bytes = trail.bytes.clone();
    // A digit becomes another digit and a letter another letter.
    bytes[place] ^= 1;
    let code = trail.verify(name, &bytes);
    let around = &trail.bytes[place.saturating_sub(20)..(place + 20).min(trail.bytes.len())];
    let around = String::from_utf8_lossy(around);
    assert!(matches!(code, 1 | 4), "{code} for byte {place}, {around}");
}

#[test]
fn cutting_and_adding() {
    if !privileged("cutting and adding") {
        return;
    }
    let trail = Trail::new();
    let check = |bytes: &[u8], codes: &[i32], what: &str| {
        let code = trail.verify("edited", bytes);
        assert!(codes.contains(&code), "{code} for {what}");
    };
    let whole = &trail.bytes[..];
    let feeds = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let ends: Vec<usize> = feeds.map(|(place, _)| place + 1).collect();
    for end in &ends[..ends.len() - 1] {
        check(
            &whole[..*end],
            &[2],
            &format!("a cut after a line, at {end}"),
        );
        check(
            &whole[..*end - 1],
            &[2],
            &format!("a cut before a line feed, at {end}"),
        );
        check(
            &whole[..*end - 100],
            &[2],
            &format!("a cut in a line, at {end}"),
        );
    }
    check(
        &whole[..whole.len() - 1],
        &[2],
        "the last line feed cut off",
    );
    check(b"", &[2], "everything cut off");

    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for added in [
        &b"\n"[..],
        b"x",
        b"\0",
        b"{}\n",
        b" ",
        lines[0],
        lines[lines.len() - 1],
    ] {
        check(&[whole, added].concat(), &[1, 4], "something appended");
    }
    for place in [0, 1, 5, lines.len() - 2] {
        let mut without = lines.clone();
        without.remove(place);
        check(&without.concat(), &[1], "a line taken out");
        let mut swapped = lines.clone();
        swapped.swap(place, place + 1);
        check(&swapped.concat(), &[1], "two lines swapped");
        let mut twice = lines.clone();
        twice.insert(place, lines[place]);
        check(&twice.concat(), &[1], "a line doubled");
    }
}

/// What the demo tells people to try: a verdict that is made to look harmless.
#[test]
fn a_verdict_that_was_edited() {
    if !privileged("a verdict that was edited") {
        return;
    }
    let trail = Trail::new();
    let text = String::from_utf8(trail.bytes.clone()).unwrap();
    let edited = text.replace(r#""result":"anomaly""#, r#""result":"allow""#);
    let path = trail.dir.file("edited.jsonl", edited);
    let verified = run(&["verify", &path]).expect(1).quiet();
    assert!(
        verified.stdout.starts_with("TAMPERED after "),
        "{}",
        verified.stdout
    );
    assert!(
        verified.stdout.contains("last good record is seq "),
        "{}",
        verified.stdout
    );
    // Events of a trail that was edited are evidence against nobody.
    let policy = trail.dir.text("out/policy.yaml");
    let against = run(&["verify", &path, "--against", &policy])
        .expect(1)
        .quiet();
    assert!(
        against.stdout.contains("policy: not judged again"),
        "{}",
        against.stdout
    );
    assert!(!against.stdout.contains("  seq "), "{}", against.stdout);
    // The same by way of standard input.
    let mut shell = Command::new("sh");
    let script = r#""$0" verify - < "$1""#;
    shell.args(["-c", script, env!("CARGO_BIN_EXE_sandtrace"), &path]);
    crate::support::finish(shell).expect(1).quiet();
}
