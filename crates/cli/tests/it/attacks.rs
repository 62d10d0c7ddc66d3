//! Every file of the attack corpus gets exactly its exit code: from the
//! program, and from a verifier that shares nothing with it but the document.

use std::path::Path;
use std::process::Command;

use crate::support::{Dir, finish, run, sandtrace};

/// One line of the corpus's manifest.
struct Case {
    trail: String,
    options: Vec<String>,
    exit_code: i32,
}

/// Makes the corpus; the program has checked itself meanwhile.
fn corpus() -> (Dir, Vec<Case>) {
    let dir = Dir::new();
    let table = run(&["demo", "tamper", "--keep", &dir.text("")])
        .expect(0)
        .quiet();
    assert!(table.stdout.contains("rewritten-by-the-host"));
    let manifest = std::fs::read(dir.path("manifest.json")).unwrap();
    let manifest: Vec<serde_json::Value> = serde_json::from_slice(&manifest).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let cases = manifest.iter().map(|case| Case {
        trail: text(&case["trail"]),
        options: case["options"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect(),
        exit_code: i32::try_from(case["exit_code"].as_i64().unwrap()).unwrap(),
    });
    (dir, cases.collect())
}

#[test]
fn every_attack_gets_its_exit_code() {
    let (dir, cases) = corpus();
    assert!(cases.len() > 100, "{}", cases.len());
    for case in &cases {
        let mut command = sandtrace(&["verify", &case.trail, "--json"]);
        command.args(&case.options).current_dir(dir.at());
        let ran = finish(command).expect(case.exit_code).quiet();
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(json["exit_code"], case.exit_code, "{}", case.trail);
        crate::schema::check(&json);
    }
}

#[test]
fn a_second_verifier_agrees() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dev/verify-py/verify.py");
    let Some(python) = python() else {
        return;
    };
    let (dir, cases) = corpus();
    for case in &cases {
        let mut command = Command::new(python);
        command.arg(script).arg(&case.trail).args(&case.options);
        command.current_dir(dir.at());
        let ran = finish(command);
        assert_eq!(
            ran.code, case.exit_code,
            "{} {:?}: {ran:#?}",
            case.trail, case.options
        );
    }
}

/// A Python that has `cryptography`; CI must have one.
fn python() -> Option<&'static str> {
    // The system's, for which there is a package, before any other.
    let has_it = |python: &&str| {
        let mut command = Command::new(python);
        command.args(["-c", "import cryptography"]);
        Path::new(python).exists() && command.output().is_ok_and(|out| out.status.success())
    };
    let found = ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|python| has_it(python));
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "python3-cryptography is missing"
        );
        println!("skipped: a second verifier agrees: no python3-cryptography");
    }
    found
}

#[test]
fn a_directory_is_verified_trail_by_trail() {
    let (dir, _) = corpus();
    let all = Dir::new();
    let copy = |from: &str, to: &str| {
        let bytes = std::fs::read(dir.path(from)).unwrap();
        std::fs::write(all.path(to), bytes).unwrap();
    };
    copy("untouched/trace.jsonl", "b.jsonl");
    copy("untouched-segments/trace.jsonl", "a.jsonl");
    copy("untouched-segments/trace.0002.jsonl", "a.0002.jsonl");
    copy("untouched-segments/trace.0003.jsonl", "a.0003.jsonl");
    all.file("notes.txt", "no trail");
    let place = all.text("");
    let key = dir.text("host.vkey");
    let valid = run(&["verify", &place, "--key", &key]).expect(0).quiet();
    let lines: Vec<_> = valid.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("a.jsonl: VALID L2 sealed · 25 records"));
    assert!(lines[1].contains("b.jsonl: VALID L2 sealed · 21 records"));
    // The worst code wins, wherever it stands.
    copy("cut-at-a-line/trace.jsonl", "c.jsonl");
    run(&["verify", &place, "--key", &key]).expect(2).quiet();
    copy("signed-by-another-key/trace.jsonl", "d.jsonl");
    run(&["verify", &place, "--key", &key]).expect(3).quiet();
    copy("crlf/trace.jsonl", "e.jsonl");
    run(&["verify", &place, "--key", &key]).expect(4).quiet();
    copy("swapped/trace.jsonl", "f.jsonl");
    let worst = run(&["verify", &place, "--key", &key]).expect(1).quiet();
    assert_eq!(worst.stdout.lines().count(), 6, "{}", worst.stdout);
    // A trail of which only its checkpoint is left is missed.
    let only = Dir::new();
    only.file("gone.jsonl.checkpoint", "whatever");
    let gone = run(&["verify", &only.text("")]).expect(2);
    assert!(gone.stderr.contains("GONE"), "{gone:#?}");
    let empty = Dir::new();
    run(&["verify", &empty.text("")])
        .expect(4)
        .one_line(&["no trail in this directory"]);
}

#[test]
fn what_is_known_from_elsewhere_must_be_readable() {
    let (dir, _) = corpus();
    let trail = dir.text("untouched/trace.jsonl");
    let check = |options: &[&str], code: i32, parts: &[&str]| {
        let args: Vec<&str> = ["verify", &trail]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        run(&args).expect(code).one_line(parts);
    };
    let key = std::fs::read_to_string(dir.path("host.vkey")).unwrap();
    let key = key.trim();
    check(&["--key", "no-such-file"], 64, &["no such file"]);
    check(&["--key", &key[..key.len() - 4]], 64, &["--key"]);
    check(
        &["--key", &key.replace("demo+", "other+")],
        64,
        &["the key's id does not belong"],
    );
    check(&["--key", &dir.file("empty", "")], 4, &["no key in it"]);
    check(&["--key", &dir.file("x", "x\n")], 4, &["x:1: a key has"]);
    check(&["--level", "3"], 64, &["--witness-policy"]);
    let policy = dir.file("policy", "witness w\n");
    check(&["--witness-policy", &policy], 65, &["policy", "line 1"]);
    let second = dir.text("untouched-segments/trace.0002.jsonl");
    run(&["verify", &second])
        .expect(64)
        .one_line(&["segment 2", "trace.jsonl"]);
}

/// The first line says it all.
#[test]
fn first_lines() {
    let (dir, _) = corpus();
    let check = |options: &[&str], expected: &str| {
        let trail = dir.text("untouched/trace.jsonl");
        let args: Vec<&str> = ["verify", &trail]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        let first = run(&args).expect(0).quiet().stdout;
        assert_eq!(first.lines().next(), Some(expected));
    };
    check(
        &[],
        "VALID L2 sealed · 21 records · key sandtrace/demo (self-consistent, key not pinned) · \
         3 packets lost · policy: not judged again",
    );
    check(
        &["--key", &dir.text("host.vkey")],
        "VALID L2 sealed · 21 records · key sandtrace/demo (pinned) · 3 packets lost · \
         policy: not judged again",
    );
    check(
        &[
            "--key",
            &dir.text("host.vkey"),
            "--witness-policy",
            &dir.text("witnesses.txt"),
        ],
        "VALID L3 witnessed · 21 records · key sandtrace/demo (pinned) · 3 packets lost · \
         policy: not judged again",
    );
}
