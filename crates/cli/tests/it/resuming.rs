//! A watch that was killed goes on in its trail; one that cannot says why.
//! These need no root: an overlay's upper dir is a directory.

use crate::support::{Dir, Running, assert_sealed, events, eventually, run, sandtrace};
use rustix::process::Signal;
use sandtrace_event::{BreakReason, EventType, Payload};
use std::fs;

fn watch(dir: &Dir, more: &[&str]) -> Running {
    let (upper, trail) = (dir.text("upper"), dir.text("trace.jsonl"));
    let mut args = vec!["watch", "--sandbox-id", "box", "--overlay", &upper];
    args.extend(["--trail", &trail, "--scan-interval", "50ms"]);
    args.extend(more);
    let running = Running::start(sandtrace(&args));
    eventually("the watch begins", || {
        running.stderr().contains("Ctrl-C ends").then_some(())
    });
    running
}

/// Kills a watch once it has recorded a file.
fn killed(dir: &Dir) {
    let running = watch(dir, &[]);
    fs::write(dir.path("upper/first"), "before the kill").unwrap();
    eventually("the file is recorded", || {
        let text = fs::read_to_string(dir.path("trace.jsonl")).unwrap_or_default();
        text.contains("/first").then_some(())
    });
    running.signal(Signal::KILL);
    drop(running);
}

#[test]
fn a_killed_watch_goes_on_in_its_trail() {
    let dir = Dir::new();
    dir.dir("upper");
    killed(&dir);
    let trail = dir.path("trace.jsonl");
    // A crash may leave a part of a line.
    let mut bytes = fs::read(&trail).unwrap();
    bytes.extend_from_slice(b"{\"agent_id\":\"box\",\"eve");
    fs::write(&trail, &bytes).unwrap();
    run(&["verify".as_ref(), trail.as_os_str()]).expect(2);

    let again = watch(&dir, &[]);
    assert!(
        again.stderr().contains("it goes on (22 torn bytes"),
        "{}",
        again.stderr()
    );
    fs::write(dir.path("upper/second"), "after the kill").unwrap();
    again.signal(Signal::INT);
    again.wait().expect(0);
    let events = assert_sealed(&trail);
    let sessions: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.payload {
            Payload::SessionStart(session) => Some((session, event)),
            _ => None,
        })
        .collect();
    let [(session, event)] = sessions[..] else {
        panic!("{sessions:?}");
    };
    assert_eq!(session.torn_bytes.0, 22);
    assert!(!session.clean && session.torn_digest.is_some());
    assert_eq!(Some(session.prior_hash), event.prev_hash);
    assert!(session.key.is_some() && !session.capture.is_empty());
    assert_eq!(fs::read(dir.path("trace.jsonl.torn")).unwrap().len(), 22);
    let paths: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.payload {
            Payload::FilesystemChange(change) => Some(change.path.as_str()),
            _ => None,
        })
        .collect();
    assert!(
        paths.contains(&"/first") && paths.contains(&"/second"),
        "{paths:?}"
    );
}

#[test]
fn a_second_writer_is_told_of_the_first() {
    let dir = Dir::new();
    dir.dir("upper");
    let first = watch(&dir, &[]);
    let (upper, trail) = (dir.text("upper"), dir.text("trace.jsonl"));
    run(&[
        "watch",
        "--sandbox-id",
        "box",
        "--overlay",
        &upper,
        "--trail",
        &trail,
    ])
    .expect(73)
    .one_line(&["is being written by another process"]);
    first.signal(Signal::INT);
    first.wait().expect(0);
    assert_sealed(dir.path("trace.jsonl"));
}

#[test]
fn a_trail_that_was_rolled_back_is_not_gone_on_with() {
    let dir = Dir::new();
    dir.dir("upper");
    killed(&dir);
    let trail = dir.path("trace.jsonl");
    let signed = fs::read_to_string(dir.path("trace.jsonl.checkpoint")).ok();
    let first_line = fs::read_to_string(&trail).unwrap();
    let first_line = first_line.split_inclusive('\n').next().unwrap().to_owned();
    if signed.is_none() {
        // No deny and less than ten seconds: a checkpoint of its own shows the same.
        let note = format!(
            "sandtrace/x/y\n5\n{}=\n\n\u{2014} x AAAAAAAA\n",
            "A".repeat(43)
        );
        fs::write(dir.path("trace.jsonl.checkpoint"), note).unwrap();
    }
    fs::write(&trail, &first_line).unwrap();
    let again = watch(&dir, &["--duration", "3s"]);
    let ran = again.wait().expect(0);
    assert!(
        ran.stderr.contains("where a signed checkpoint speaks of"),
        "{}",
        ran.stderr
    );
    // What was there is as it was; a linked trail tells the rest.
    assert_eq!(fs::read_to_string(&trail).unwrap(), first_line);
    let linked = fs::read_dir(dir.at())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("trace.after-") && name.ends_with(".jsonl")
        })
        .expect("a linked trail");
    let events = events(&linked);
    assert_eq!(events[0].event_type, EventType::TrailStart);
    let Payload::TrailStart(start) = &events[0].payload else {
        panic!();
    };
    let previous = start.previous.as_ref().unwrap();
    assert_eq!(previous.reason, BreakReason::Rollback);
    assert_eq!(previous.size.0, 1);
}

#[test]
fn a_trail_of_many_files_is_one_trail() {
    let dir = Dir::new();
    dir.dir("upper");
    let running = watch(&dir, &["--segment-size", "4K"]);
    for number in 0..20 {
        fs::write(dir.path(&format!("upper/{number}")), "x").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    eventually("a second file begins", || {
        dir.path("trace.0002.jsonl").exists().then_some(())
    });
    running.signal(Signal::INT);
    running.wait().expect(0);
    let verified = run(&["verify".as_ref(), dir.path("trace.jsonl").as_os_str()]).expect(0);
    assert!(
        verified.stdout.starts_with("VALID L2 sealed"),
        "{}",
        verified.stdout
    );
    // Without its last file it is incomplete.
    let last = (2..).take_while(|number| dir.path(&format!("trace.{number:04}.jsonl")).exists());
    let last = last.last().unwrap();
    fs::remove_file(dir.path(&format!("trace.{last:04}.jsonl"))).unwrap();
    run(&["verify".as_ref(), dir.path("trace.jsonl").as_os_str()]).expect(2);
}
