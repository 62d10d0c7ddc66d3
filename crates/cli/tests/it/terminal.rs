//! Colours are for terminals whose user did not refuse them.

use std::fs;
use std::process::Command;

use crate::support::{Dir, POLICY, finish, run, sandtrace};

/// A trail with one denied change.
fn trail(dir: &Dir) -> String {
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let mut args = vec![
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
    ];
    args.extend(["--policy", POLICY, "--scan-interval", "1h"]);
    let watch = crate::support::Running::start(sandtrace(&args)).ready();
    fs::write(dir.path("upper/denied"), "x").unwrap();
    watch.signal(rustix::process::Signal::INT);
    watch.wait().expect(0);
    trail
}

/// On a terminal of 100 columns, which script(1) makes.
fn on_terminal(dir: &Dir, trail: &str, environment: &[(&str, &str)]) -> String {
    let mut script = Command::new("script");
    let line = format!(
        "stty cols 100 && {} stream {trail}",
        env!("CARGO_BIN_EXE_sandtrace")
    );
    script.args(["-qec", &line]).arg(dir.path("typescript"));
    // A CI's terminal counts as one with colours.
    script.env_remove("NO_COLOR").env_remove("CI");
    script.env("TERM", "xterm-256color");
    script.envs(environment.iter().copied());
    finish(script).expect(0).stdout
}

#[test]
fn colours() {
    let dir = Dir::new();
    let trail = trail(&dir);
    let shown = on_terminal(&dir, &trail, &[]);
    assert!(shown.contains("\x1b["), "{shown}");
    let plain = on_terminal(&dir, &trail, &[("NO_COLOR", "1")]);
    assert!(
        plain.contains("/denied") && !plain.contains('\x1b'),
        "{plain}"
    );
    let dumb = on_terminal(&dir, &trail, &[("TERM", "dumb")]);
    assert!(!dumb.contains('\x1b'), "{dumb}");
    let piped = run(&["stream", &trail]).expect(0).quiet();
    assert!(piped.stdout.contains("/denied") && !piped.stdout.contains('\x1b'));
    let help = run(&["--help"]).expect(0).quiet();
    assert!(!help.stdout.contains('\x1b'));
}

/// Lines are cut to the terminal, never wrapped.
#[test]
fn lines_fit_the_terminal() {
    let dir = Dir::new();
    let shown = on_terminal(&dir, &trail(&dir), &[("NO_COLOR", "1")]);
    let longest = shown
        .lines()
        .map(|line| line.trim_end().chars().count())
        .max();
    assert!((60..=100).contains(&longest.unwrap()), "{shown}");
}
