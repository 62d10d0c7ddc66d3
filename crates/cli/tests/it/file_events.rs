//! The kernel's events of writes bring a scan forward, and that some were lost is recorded.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use sandtrace_event::{CaptureGap, FileOp, GapCause, GapUnit, Layer, Payload};

use crate::support::{Dir, Running, assert_sealed, await_text, sandtrace};

/// Between two scans on the interval is an hour: whatever is told sooner, an event brought.
#[test]
fn writes_bring_a_scan_forward_and_a_full_queue_is_recorded() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let args = ["watch", "--sandbox-id", "box", "--scan-interval", "1h"];
    let args = [&args[..], &["--overlay", &upper, "--trail", &trail]].concat();
    let watch = Running::start(sandtrace(&args)).ready();
    fs::write(dir.path("upper/first"), "x").unwrap();
    await_text(&trail, r#""path":"/first""#);
    // Nobody reads the queue meanwhile.
    watch.signal(Signal::STOP);
    if !fill_queue(&dir.path("upper")) {
        return;
    }
    fs::write(dir.path("upper/last"), "x").unwrap();
    watch.signal(Signal::CONT);
    await_text(&trail, "events_lost");
    await_text(&trail, r#""path":"/last""#);
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let events = assert_sealed(&trail);
    let gaps: Vec<&CaptureGap> = events
        .iter()
        .filter_map(|event| match &event.payload {
            Payload::CaptureGap(gap) => Some(gap),
            _ => None,
        })
        .collect();
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(
        (gap.cause, gap.layer, gap.unit, gap.count.0),
        (GapCause::EventsLost, Layer::Filesystem, GapUnit::Scans, 1)
    );
    assert_eq!(gap.source, upper);
    // What the lost events would have told of, the scan told.
    let created = events.iter().filter(|event| match &event.payload {
        Payload::FilesystemChange(change) => change.op == FileOp::Created,
        _ => false,
    });
    assert_eq!(created.count(), 3);
}

/// Not all directories are listened to; the scan looks at all of them.
#[test]
fn more_directories_than_are_listened_to_are_said_once() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    for number in 0..4200 {
        fs::create_dir(dir.path(&format!("upper/{number}"))).unwrap();
    }
    let args = ["watch", "--sandbox-id", "box", "--scan-interval", "200ms"];
    let args = [&args[..], &["--overlay", &upper, "--trail", &trail]].concat();
    let watch = Running::start(sandtrace(&args)).ready();
    for name in ["0/one", "4199/two"] {
        fs::write(dir.path(&format!("upper/{name}")), "x").unwrap();
        await_text(&trail, &format!(r#""path":"/{name}""#));
    }
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let events = assert_sealed(&trail);
    let is_said = |event: &&sandtrace_event::AuditEvent| match &event.payload {
        Payload::CaptureGap(gap) => {
            gap.cause == GapCause::EventsLost && gap.detail.contains("more directories")
        }
        _ => false,
    };
    assert_eq!(events.iter().filter(is_said).count(), 1);
}

/// One that the kernel drops while the last scan is still to come is told too.
#[test]
fn a_queue_that_is_full_at_the_end_is_recorded() {
    let dir = Dir::new();
    let (upper, trail) = (dir.dir("upper"), dir.text("trace.jsonl"));
    let args = ["watch", "--sandbox-id", "box", "--scan-interval", "1h"];
    let args = [&args[..], &["--overlay", &upper, "--trail", &trail]].concat();
    let watch = Running::start(sandtrace(&args)).ready();
    watch.signal(Signal::STOP);
    if !fill_queue(&dir.path("upper")) {
        return;
    }
    watch.signal(Signal::INT);
    watch.signal(Signal::CONT);
    watch.wait().expect(0);
    assert_sealed(&trail);
    assert!(fs::read_to_string(&trail).unwrap().contains("events_lost"));
}

/// Renames a file back and forth until the kernel's queue can hold no more: each time makes two
/// events, of which no two in a row are equal.
fn fill_queue(dir: &Path) -> bool {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 1 << 20 {
        println!("skipped: the kernel's queue of events is very long");
        return false;
    }
    let [one, other] = ["one", "other"].map(|name| dir.join(name));
    fs::write(&one, "x").unwrap();
    for _ in 0..=limit / 4 {
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    }
    true
}
