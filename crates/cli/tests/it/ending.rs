//! However a watch ends, its trail ends in order. These need no root: an overlay's upper dir is
//! a directory.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sandtrace_event::{EndReason, EventType, FileOp, Payload};

use crate::support::{Dir, Running, assert_sealed, eventually, run, sandtrace, trail_end};

#[test]
fn interrupted_by_the_keyboard() {
    check(Some(Signal::INT), EndReason::Interrupted);
}

#[test]
fn terminated_by_a_supervisor() {
    check(Some(Signal::TERM), EndReason::Interrupted);
}

#[test]
fn after_the_time_that_was_given() {
    check(None, EndReason::Duration);
}

/// The last scan sees what was written just before the end.
#[track_caller]
fn check(signal: Option<Signal>, reason: EndReason) {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let mut args = vec!["watch", "--sandbox-id", "box", "--overlay", &upper];
    args.extend(["--trail", &trail, "--scan-interval", "1h"]);
    if signal.is_none() {
        args.extend(["--duration", "700ms"]);
    }
    let began = Instant::now();
    let watch = Running::start(sandtrace(&args)).ready();
    fs::write(dir.path("upper/late"), "written at the last moment").unwrap();
    if let Some(signal) = signal {
        watch.signal(signal);
    }
    let watch = watch.wait().expect(0);
    let enough = signal.is_some() || began.elapsed() >= Duration::from_millis(700);
    assert!(enough, "ended after {:?}", began.elapsed());
    for said in [
        "records   4 ",
        "6 records, head sha256:",
        "next: sandtrace verify ",
    ] {
        assert!(watch.stderr.contains(said), "no {said:?}: {}", watch.stderr);
    }

    let events = assert_sealed(&trail);
    let types: Vec<_> = events.iter().map(|event| event.event_type).collect();
    let expected = [
        EventType::TrailStart,
        EventType::SandboxAttached,
        EventType::FilesystemChange,
        EventType::SandboxDetached,
        EventType::TrailEnd,
    ];
    assert_eq!(types, expected);
    assert_eq!(trail_end(&events).reason, reason);
    let Payload::FilesystemChange(change) = &events[2].payload else {
        unreachable!()
    };
    assert_eq!(
        (change.path.as_str(), change.op),
        ("/late", FileOp::Created)
    );
    assert!(
        events.iter().all(|event| event.verdict.is_none()),
        "no policy"
    );
}

/// A watch that was killed leaves whole lines; `verify` says that the end is missing, until
/// another watch goes on.
#[test]
fn killed() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let args = [
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
    ];
    let watch = Running::start(sandtrace(&args)).ready();
    eventually("the trail begins", || {
        fs::metadata(&trail)
            .is_ok_and(|trail| trail.len() > 0)
            .then_some(())
    });
    watch.signal(Signal::KILL);
    drop(watch);
    let verified = run(&["verify", &trail]).expect(2).quiet();
    assert!(
        verified.stdout.starts_with("INCOMPLETE"),
        "{}",
        verified.stdout
    );
    // The next watch goes on where this one stopped.
    let again: Vec<&str> = args.into_iter().chain(["--duration", "300ms"]).collect();
    run(&again).expect(0);
    let verified = run(&["verify", &trail]).expect(0).quiet();
    assert!(
        verified.stdout.contains("in 2 sessions"),
        "{}",
        verified.stdout
    );
}
