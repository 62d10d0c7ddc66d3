//! Files that are not what they should be: one line, the documented code, nothing half-written.

use std::fs;

use crate::support::{Dir, POLICY, events, run};

/// Bytes that are neither text nor zero.
fn junk() -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..300_000).map(|_| next()).collect()
}

/// `policy` is refused by whoever reads it, before anything is made.
#[track_caller]
fn check_policy(contents: &[u8], parts: &[&str]) {
    let dir = Dir::new();
    let policy = dir.file("policy.yaml", contents);
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let watch = [
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
    ];
    for args in [
        &["policy", "check", &policy][..],
        &["verify", "none-such", "--against", &policy],
        &[&watch[..], &["--policy", &policy]].concat(),
    ] {
        let ran = run(args).expect(65);
        assert_eq!(ran.stdout, "");
        // Every fault is one line, as compilers say it.
        let faults: Vec<_> = ran.stderr.lines().collect();
        assert!((1..=20).contains(&faults.len()), "{}", ran.stderr);
        assert!(
            faults.iter().all(|fault| fault.contains("policy.yaml:")),
            "{}",
            ran.stderr
        );
        assert!(
            parts.iter().all(|part| faults[0].contains(part)),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains(|c: char| c.is_control() && c != '\n'));
    }
    assert_eq!(dir.names(), ["policy.yaml", "upper"]);
}

#[test]
fn policies() {
    let good = fs::read_to_string(POLICY).unwrap();
    let misspelt = good.replace("type: filesystem", "type: filesytem");
    let line = 1 + misspelt
        .lines()
        .position(|line| line.contains("filesytem"))
        .unwrap();
    let place = format!("policy.yaml:{line}:11: ");
    check_policy(
        misspelt.as_bytes(),
        &[&place, "did you mean \"filesystem\"?"],
    );
    check_policy(b"", &["policy.yaml:1:1: ", "empty"]);
    check_policy(b"# nothing\n", &["policy.yaml:"]);
    check_policy(b"[1, 2", &["policy.yaml:"]);
    check_policy(&junk(), &["policy.yaml:1:"]);
    check_policy(&[0; 64], &["policy.yaml:1:"]);
    check_policy(
        &vec![b' '; 2 << 20],
        &["policy.yaml:1:1: ", "at most 1 MiB"],
    );
    check_policy(b"a: &a [*a]\n", &["policy.yaml:1:"]);
    check_policy("[".repeat(100_000).as_bytes(), &["policy.yaml:1:"]);
    // What the file says never reaches the terminal raw.
    check_policy(b"\"\\e[31mred\": 1\n", &["policy.yaml:1:"]);
}

#[test]
fn policies_that_cannot_be_read() {
    let dir = Dir::new();
    let none = dir.text("none.yaml");
    let args = ["policy", "check", &none];
    run(&args)
        .expect(65)
        .one_line(&["read policy", "none.yaml", "No such file"]);
    let args = ["policy", "check", dir.at().to_str().unwrap()];
    run(&args)
        .expect(65)
        .one_line(&["read policy", "Is a directory"]);
}

/// Not a trail: `verify` says so in its answer, `stream` in one line.
#[track_caller]
fn check_trail(contents: &[u8], verify: i32, stream: i32) {
    let dir = Dir::new();
    let trail = dir.file("trace.jsonl", contents);
    let verified = run(&["verify", &trail]).expect(verify).quiet();
    assert!(!verified.stdout.is_empty());
    let json = run(&["verify", &trail, "--json"]).expect(verify).quiet();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["exit_code"], verify);
    let against = run(&["verify", &trail, "--against", POLICY])
        .expect(verify)
        .quiet();
    assert!(!against.stdout.contains("  seq "), "{}", against.stdout);
    let streamed = run(&["stream", &trail]).expect(stream);
    assert_eq!(streamed.stdout, "");
    assert!(streamed.stderr.lines().count() <= 5, "{}", streamed.stderr);
    assert!(!streamed.stderr.contains('\x1b'));
}

#[test]
fn trails() {
    check_trail(b"", 2, 0);
    check_trail(b"\n", 4, 4);
    check_trail(b"hello\n", 4, 4);
    check_trail(b"{}\n", 4, 4);
    check_trail(b"{\"\x1b[31m\":1}\n", 4, 4);
    check_trail(&[0; 100], 4, 2);
    check_trail(&junk(), 4, 4);
    check_trail(&vec![b'x'; 200_000], 4, 4);
    check_trail(&b"{}\n".repeat(20_000), 4, 4);
    check_trail("[".repeat(60_000).as_bytes(), 4, 2);
}

#[test]
fn trails_that_cannot_be_read() {
    let dir = Dir::new();
    let none = dir.text("none.jsonl");
    let here = dir.at().to_str().unwrap();
    for command in ["verify", "stream"] {
        run(&[command, &none])
            .expect(4)
            .one_line(&["none.jsonl", "No such file"]);
        run(&[command, here]).expect(4).one_line(&["directory"]);
    }
    let against_stdin = run(&["verify", "-", "--against", POLICY]).expect(64);
    against_stdin.one_line(&["--against", "file"]);
}

#[test]
fn trails_that_cannot_be_made() {
    let dir = Dir::new();
    let upper = dir.dir("upper");
    let taken = dir.file("taken.jsonl", "mine");
    let check = |trail: &str, parts: &[&str]| {
        let args = [
            "watch",
            "--sandbox-id",
            "box",
            "--overlay",
            &upper,
            "--trail",
            trail,
        ];
        run(&args).expect(73).one_line(parts);
    };
    check(&taken, &["taken.jsonl", "exists"]);
    assert_eq!(fs::read(&taken).unwrap(), b"mine");
    check(
        &dir.text("none/trace.jsonl"),
        &["none/trace.jsonl", "No such file"],
    );
    check(
        &dir.text("taken.jsonl/trace.jsonl"),
        &["taken.jsonl", "Not a directory"],
    );
    check(dir.at().to_str().unwrap(), &["no regular file"]);
    check("/dev/full", &["/dev/full", "exists"]);
    assert!(std::path::Path::new("/dev/full").exists());
    std::os::unix::fs::symlink(dir.path("nowhere"), dir.path("link")).unwrap();
    check(&dir.text("link"), &["link", "exists"]);
    assert_eq!(dir.names(), ["link", "taken.jsonl", "upper"]);
}

#[test]
fn outputs_that_cannot_be_opened() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let check = |output: &str, parts: &[&str]| {
        let args = [
            "watch",
            "--sandbox-id",
            "box",
            "--overlay",
            &upper,
            "--trail",
            &trail,
        ];
        run(&[&args[..], &["-o", output]].concat())
            .expect(73)
            .one_line(parts);
        assert!(!dir.path("trace.jsonl").exists());
    };
    check(&dir.text("none/out"), &["none/out", "No such file"]);
    check(
        &format!("unix://{}", dir.text("s")),
        &["unix://", "No such file"],
    );
    check(&upper, &["upper"]);
}

#[test]
fn disks_and_overlays() {
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let file = dir.file("file", "text");
    let check = |option: &str, path: &str, parts: &[&str]| {
        let args = [
            "watch",
            "--sandbox-id",
            "box",
            option,
            path,
            "--trail",
            &trail,
        ];
        run(&args).expect(69).one_line(parts);
        assert!(!dir.path("trace.jsonl").exists());
    };
    check(
        "--overlay",
        &dir.text("none"),
        &["overlay", "none", "No such file"],
    );
    check("--overlay", &file, &["overlay", "file", "not a directory"]);
    check(
        "--disk",
        &dir.text("none"),
        &["disk", "none", "No such file"],
    );
    check(
        "--disk",
        dir.at().to_str().unwrap(),
        &["disk", "not a regular file"],
    );
    check(
        "--disk",
        "/dev/null",
        &["disk", "/dev/null", "not a regular file"],
    );
}

/// A disk that cannot be read is said in the trail, which goes on for what else there is.
#[test]
fn disks_that_hold_no_ext4() {
    for (name, contents) in [
        ("junk", junk()),
        ("empty", Vec::new()),
        ("zero", vec![0; 4 << 20]),
    ] {
        let dir = Dir::new();
        let (disk, trail) = (dir.file(name, contents), dir.text("trace.jsonl"));
        let args = [
            "watch",
            "--sandbox-id",
            "box",
            "--disk",
            &disk,
            "--trail",
            &trail,
        ];
        let ran = run(&[&args[..], &["--duration", "100ms"]].concat()).expect(0);
        assert!(ran.stderr.contains("1 capture_gap"), "{}", ran.stderr);
        let events = events(&trail);
        let gap = events.iter().find_map(|event| match &event.payload {
            sandtrace_event::Payload::CaptureGap(gap) => Some(gap),
            _ => None,
        });
        let gap = gap.unwrap();
        assert_eq!(gap.cause, sandtrace_event::GapCause::DiskUnreadable);
        assert!(gap.source.ends_with(name), "{gap:?}");
        let verified = run(&["verify", &trail]).expect(0);
        assert!(!verified.stdout.contains(" 0 lost"), "{}", verified.stdout);
    }
}
