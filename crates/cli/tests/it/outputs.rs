//! What is shown and sent is a projection; the trail is the truth.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{
    Dir, POLICY, Running, assert_sealed, eventually, finish, lines, run, sandtrace,
};

/// A watch over a directory, with three files made in it.
struct Watched {
    dir: Dir,
    trail: String,
}

impl Watched {
    fn over(outputs: &[&str]) -> (Self, Running) {
        let dir = Dir::new();
        let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
        let mut args = vec!["watch", "--sandbox-id", "box", "--policy", POLICY];
        args.extend([
            "--overlay",
            &upper,
            "--trail",
            &trail,
            "--scan-interval",
            "50ms",
        ]);
        args.extend(outputs);
        let watch = Running::start(sandtrace(&args)).ready();
        fs::create_dir_all(dir.path("upper/home/agent")).unwrap();
        fs::write(dir.path("upper/home/agent/a"), "allowed").unwrap();
        fs::write(dir.path("upper/b"), "denied").unwrap();
        (Self { dir, trail }, watch)
    }

    fn end(&self, watch: Running) -> crate::support::Ran {
        watch.signal(Signal::INT);
        let ran = watch.wait().expect(0);
        assert_sealed(&self.trail);
        ran
    }

    /// A trail that ended.
    fn trail() -> Self {
        let (watched, watch) = Self::over(&[]);
        watched.end(watch);
        watched
    }
}

#[test]
fn json_lines_are_the_trail_s_lines() {
    let (watched, watch) = Watched::over(&["-o", "-"]);
    let ran = watched.end(watch);
    let trail = fs::read_to_string(&watched.trail).unwrap();
    assert_eq!(ran.stdout, trail);
    let streamed = run(&["stream", &watched.trail, "-o", "-"])
        .expect(0)
        .quiet();
    assert_eq!(streamed.stdout, trail);
}

#[test]
fn a_file_gets_the_lines_and_standard_output_stays_readable() {
    let dir = Dir::new();
    let copy = dir.text("copy.jsonl");
    let (watched, watch) = Watched::over(&["-o", &copy]);
    let ran = watched.end(watch);
    assert_eq!(lines(&copy), lines(&watched.trail));
    assert!(
        ran.stdout.contains("FS   deny    created  /b"),
        "{}",
        ran.stdout
    );
    let again = run(&["stream", &watched.trail, "-o", &copy]).expect(73);
    again.one_line(&["exists", "copy.jsonl"]);
    assert_eq!(lines(&copy), lines(&watched.trail), "left as it was");
}

#[test]
fn a_unix_socket_gets_the_lines() {
    let dir = Dir::new();
    let socket = format!("unix://{}", dir.text("s"));
    let listener = UnixListener::bind(dir.path("s")).unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let (watched, watch) = Watched::over(&["-o", &socket]);
    watched.end(watch);
    let trail = fs::read_to_string(&watched.trail).unwrap();
    assert_eq!(reader.join().unwrap(), trail);
    // Nobody listens any more.
    let refused = run(&["stream", &watched.trail, "-o", &socket]).expect(73);
    refused.one_line(&["unix://", "Connection refused"]);
}

#[test]
fn filters_choose_what_is_shown_and_never_touch_the_trail() {
    let filter = [
        "-o",
        "-",
        "--filter-verdict",
        "deny",
        "--filter-type",
        "filesystem_change",
    ];
    let (watched, watch) = Watched::over(&filter);
    let ran = watched.end(watch);
    let trail = lines(&watched.trail);
    let shown: Vec<_> = ran.stdout.lines().collect();
    let denied = |line: &&String| line.contains(r#""result":"deny""#);
    let expected: Vec<_> = trail.iter().filter(denied).collect();
    assert_eq!(shown, expected);
    assert!(shown.iter().any(|line| line.contains(r#""path":"/b""#)));
    assert!(
        trail
            .iter()
            .any(|line| line.contains(r#""path":"/home/agent/a""#))
    );
    let streamed = run(&[
        "stream",
        &watched.trail,
        "-o",
        "-",
        "--filter-type",
        "trail_end",
    ]);
    assert_eq!(streamed.expect(0).stdout.lines().count(), 1);
    let none = run(&["stream", &watched.trail, "--filter-tier", "guest"]).expect(0);
    assert_eq!(none.stdout, "");
}

#[test]
fn follow_sees_a_growing_trail_to_its_end() {
    let (watched, watch) = Watched::over(&[]);
    let follow = ["stream", &watched.trail, "--follow", "-o", "-"];
    let follow = Running::start(sandtrace(&follow));
    eventually("the change is followed", || {
        follow.stdout().contains(r#""path":"/b""#).then_some(())
    });
    assert!(!follow.stdout().contains("trail_end"));
    fs::write(watched.dir.path("upper/c"), "later").unwrap();
    eventually("the later change is followed", || {
        follow.stdout().contains(r#""path":"/c""#).then_some(())
    });
    watched.end(watch);
    // The trail's end ends it.
    let followed = follow.wait().expect(0).quiet();
    assert_eq!(followed.stdout, fs::read_to_string(&watched.trail).unwrap());
}

/// Nobody reads what is printed: that is success, and nothing to talk about.
#[test]
fn a_closed_pipe_is_success() {
    let watched = Watched::trail();
    let trail = watched.trail.as_str();
    let big = watched
        .dir
        .file("big.jsonl", fs::read(trail).unwrap().repeat(200));
    let cases: [&[&str]; 9] = [
        &["stream", trail],
        &["stream", trail, "-o", "-"],
        &["stream", &big],
        &["stream", &big, "--follow"],
        &["verify", trail],
        &["verify", trail, "--json"],
        &["policy", "check", POLICY],
        &["doctor"],
        &["--help"],
    ];
    for case in cases {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Running::start_into(sandtrace(case), writer)
            .wait()
            .expect(0)
            .quiet();
    }
}

#[test]
fn head_gets_its_line_and_the_rest_is_quiet() {
    let watched = Watched::trail();
    let big = watched
        .dir
        .file("big.jsonl", fs::read(&watched.trail).unwrap().repeat(200));
    let mut stream = sandtrace(&["stream", &big]);
    let mut child = stream
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::with_capacity(256, child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(line.contains("trace-"), "{line}");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

/// A reader that leaves does not turn a bad trail into a good one.
#[test]
fn a_closed_pipe_does_not_hide_a_bad_trail() {
    let watched = Watched::trail();
    let text = fs::read_to_string(&watched.trail).unwrap();
    let edited = text.replace(r#""path":"/b""#, r#""path":"/c""#);
    assert_ne!(text, edited);
    let edited = watched.dir.file("edited.jsonl", edited);
    for json in [None, Some("--json")] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let args: Vec<_> = ["verify", &edited].into_iter().chain(json).collect();
        Running::start_into(sandtrace(&args), writer)
            .wait()
            .expect(1)
            .quiet();
    }
}

/// `sandtrace watch … 2>&1 | head`: both streams are closed in the middle of it.
#[test]
fn a_watch_outlives_everybody_s_interest() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let (reader, writer) = std::io::pipe().unwrap();
    let args = [
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
    ];
    let mut watch = sandtrace(&[&args[..], &["--duration", "500ms"]].concat());
    let mut watch = watch
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, reader)
        .read_line(&mut line)
        .unwrap();
    assert!(!line.is_empty());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_sealed(&trail);
}

/// A watch goes on for its trail's sake when nobody looks any more.
#[test]
fn a_watch_outlives_its_reader() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = [
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
        "-o",
        "-",
    ];
    let watch = Running::start_into(sandtrace(&args), writer).ready();
    fs::write(dir.path("upper/a"), "seen").unwrap();
    watch.signal(Signal::TERM);
    let watch = watch.wait().expect(0);
    assert!(!watch.stderr.contains("roken pipe"), "{}", watch.stderr);
    let events = assert_sealed(&trail);
    assert!(
        events
            .iter()
            .any(|event| event.event_type.as_str() == "filesystem_change")
    );
}

/// A full disk under an output costs the output, not the trail.
#[test]
fn a_full_output_costs_only_itself() {
    let (watched, watch) = Watched::over(&["-o", "/dev/full"]);
    let ran = watched.end(watch);
    assert!(ran.stderr.contains("/dev/full"), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("were not delivered; the trail has them all"),
        "{}",
        ran.stderr
    );
    let streamed = run(&["stream", &watched.trail, "-o", "/dev/full"]).expect(74);
    streamed.one_line(&["/dev/full", "No space left"]);
}

/// Standard output on a full disk is no broken pipe.
#[test]
fn a_full_standard_output_is_an_error() {
    let watched = Watched::trail();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for args in [
        &["stream", &watched.trail][..],
        &["verify", &watched.trail],
        &["doctor"],
    ] {
        let ran = Running::start_into(sandtrace(args), full())
            .wait()
            .expect(74);
        ran.one_line(&["No space left"]);
    }
}

#[test]
fn a_pipeline_of_the_program_with_itself() {
    let watched = Watched::trail();
    let mut shell = Command::new("sh");
    let script = r#""$0" stream "$1" -o - | "$0" verify -"#;
    shell.args([
        "-c",
        script,
        env!("CARGO_BIN_EXE_sandtrace"),
        &watched.trail,
    ]);
    let ran = finish(shell).expect(0).quiet();
    assert!(ran.stdout.starts_with("VALID"), "{}", ran.stdout);
}
