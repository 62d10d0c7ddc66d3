//! Settings from a file, the environment and the command line.

use crate::support::{Dir, Ran, Running, finish, sandtrace};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;

/// The program without any setting of the caller's.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = sandtrace(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SANDTRACE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("SANDTRACE_STATE_DIR");
    command
}

pub(crate) fn check(file: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = bare(&["config", "check", file]);
    command.envs(variables.iter().copied());
    finish(command)
}

/// Refused by `config check`, `watch` and `list` alike, in one line that says this.
#[track_caller]
fn check_refused(file: &str, variables: &[(&str, &str)], parts: &[&str]) {
    check(file, variables).expect(78).one_line(parts);
    for args in [&["watch", "--all"][..], &["list"]] {
        let mut command = bare(&[args, &["--config", file]].concat());
        command.envs(variables.iter().copied());
        finish(command).expect(78).one_line(parts);
    }
}

/// The value of a setting and where it is from, as `config check` says.
#[track_caller]
pub(crate) fn setting(said: &str, key: &str) -> (String, String) {
    let line = said
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(key));
    let words: Vec<_> = line.expect(key).split_whitespace().collect();
    (words[0].to_owned(), words[1].to_owned())
}

#[test]
fn a_file_below_the_environment() {
    let dir = Dir::new();
    let text = "[watch]\nstate_dir = \"keys\"\nwitness = [\"http://w:1\"]\n\
                segment_size = \"64M\"\nsegment_age = \"24h\"\n\
                evidence_pcap = \"frames\"\nmax_size = \"8M\"\n";
    let file = dir.file("config.toml", text);
    let variables = [
        ("SANDTRACE_SEGMENT_SIZE", "2G"),
        ("SANDTRACE_WITNESS", "unix:///run/a,http://b:2"),
        ("SANDTRACE_SEGMENT_AGE", ""),
    ];
    let said = check(&file, &variables).expect(0).quiet().stdout;
    let expect = |key: &str, value: &str, source: &str| {
        let expected = (value.to_owned(), source.to_owned());
        assert_eq!(setting(&said, key), expected, "{said}");
    };
    expect("watch.state_dir", &dir.text("keys"), "file");
    expect(
        "watch.witness",
        "unix:///run/a,http://b:2",
        "SANDTRACE_WITNESS",
    );
    expect("watch.segment_size", "2G", "SANDTRACE_SEGMENT_SIZE");
    expect("watch.segment_age", "1day", "file");
    expect("watch.evidence_pcap", &dir.text("frames"), "file");
    expect("watch.max_size", "8M", "file");
    expect("watch.max_sandboxes", "1024", "default");
}

#[test]
fn what_is_wrong_is_refused_in_one_line() {
    let dir = Dir::new();
    let refused = |text: &str, variables: &[(&str, &str)], part: &str| {
        let file = dir.file("config.toml", text);
        check_refused(&file, variables, &[part]);
    };
    refused(
        "[watch]\nwitnes = []\n",
        &[],
        "config.toml:2:1: unknown field `witnes`",
    );
    refused("[wacht]\n", &[], "config.toml:1:2: unknown field `wacht`");
    refused("[watch]\nmax_size = \"1M\"\n", &[], "evidence_pcap");
    refused("[watch]\nscan_interval = \"0s\"\n", &[], "scan_interval");
    refused("[watch]\nsegment_size = 5\n", &[], "config.toml:2:16: ");
    let variable = [("SANDTRACE_SEGMENT_SIZE", "much")];
    let said = "environment variable SANDTRACE_SEGMENT_SIZE: a size is";
    refused("", &variable, said);
    refused("", &[("SANDTRACE_MAX_SIZE", "1M")], "evidence_pcap");
    let none = dir.text("none.toml");
    check_refused(&none, &[], &["none.toml", "No such file"]);
    let policy = dir.file("config.toml", "[watch]\npolicy = \"none.yaml\"\n");
    check(&policy, &[]).expect(65).one_line(&["none.yaml"]);
}

/// `watch` of one upper dir, for a moment.
fn watch(dir: &Dir, more: &[&str], variables: &[(&str, &str)]) -> Ran {
    let (upper, file) = (dir.text("upper"), dir.text("config.toml"));
    let args = ["watch", "--sandbox-id", "box", "--overlay", &upper];
    let args = [&args[..], &["--duration", "50ms", "--config", &file], more].concat();
    let mut command = bare(&args);
    command.envs(variables.iter().copied());
    Running::start(command).wait()
}

/// Files of a trail, and whether a key was made here.
fn made(dir: &Dir, name: &str) -> (usize, bool) {
    let place = dir.path(name);
    let names = std::fs::read_dir(&place).into_iter().flatten();
    let names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let trails = names.iter().filter(|name| name.ends_with(".jsonl"));
    (trails.count(), place.join("host.key").exists())
}

/// Each layer names a directory for the key, and a trail in it.
#[test]
fn the_command_line_over_the_environment_over_the_file() {
    let dir = Dir::new();
    dir.dir("upper");
    for name in ["file", "variable", "argument"] {
        dir.dir(name);
    }
    let text = "[watch]\nstate_dir = \"file\"\ntrail = \"file/trace.jsonl\"\nsyscalls = \"off\"\n";
    dir.file("config.toml", text);
    watch(&dir, &[], &[]).expect(0);
    assert_eq!(made(&dir, "file"), (1, true));
    let (state, trail) = (dir.text("variable"), dir.text("variable/trace.jsonl"));
    let variables = [
        ("SANDTRACE_STATE_DIR", &*state),
        ("SANDTRACE_TRAIL", &*trail),
    ];
    watch(&dir, &[], &variables).expect(0);
    assert_eq!(made(&dir, "variable"), (1, true));
    let (state, trail) = (dir.text("argument"), dir.text("argument/trace.jsonl"));
    let more = ["--state-dir", &state, "--trail", &trail];
    watch(&dir, &more, &variables).expect(0);
    assert_eq!(made(&dir, "argument"), (1, true));
    assert_eq!(made(&dir, "file"), (1, true));
    assert_eq!(made(&dir, "variable"), (1, true));
    // Commands about the key look where the watch does.
    let shown = |variables: &[(&str, &str)]| {
        let mut command = bare(&["keys", "show", "--json"]);
        command.env("SANDTRACE_CONFIG", dir.text("config.toml"));
        command.envs(variables.iter().copied());
        finish(command).expect(0).quiet().stdout
    };
    assert!(shown(&[]).contains(&dir.text("file/host.key")));
    assert!(shown(&variables).contains(&dir.text("variable/host.key")));
}

/// A trail goes on in a new file as the settings file says, and frames are
/// kept where it says.
#[test]
fn segments_and_evidence_by_the_file() {
    let dir = Dir::new();
    let upper = dir.dir("upper");
    let text = "[watch]\nstate_dir = \"keys\"\ntrail = \"trace.jsonl\"\nsyscalls = \"off\"\n\
                segment_size = \"4K\"\nevidence_pcap = \"frames\"\nscan_interval = \"20ms\"\n";
    dir.file("config.toml", text);
    let file = dir.text("config.toml");
    finish(bare(&["keys", "init", "--state-dir", &dir.text("keys")])).expect(0);
    let args = [
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--config",
        &file,
    ];
    let watch = Running::start(bare(&args)).ready();
    // Not all in one commit: a file of a trail ends between two.
    for number in 0..40 {
        std::fs::write(Path::new(&upper).join(format!("file-{number}")), "x").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(15));
    }
    watch.signal(Signal::INT);
    let ran = watch.wait().expect(0);
    let names = dir.names();
    assert!(names.iter().any(|name| name == "frames"), "{names:?}");
    let segments = names
        .iter()
        .filter(|name| name.starts_with("trace") && name.ends_with("jsonl"));
    assert!(segments.count() > 1, "{names:?}: {ran:?}");
}
