//! Events of writes under `watch --all`, for containers of which each has its
//! own queue.

use crate::containers::{contained, watched};
use crate::fleet::{Watch, of_type, records};
use crate::support::{lab, skipped};
use rustix::process::Signal;
use sandtrace_lab::NamespaceSandbox;
use sandtrace_lab::world::World;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// As the container sees it, through its overlay.
fn inside(sandbox: &NamespaceSandbox, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root/{name}", sandbox.pid()))
}

/// Writes files until one is told: what is written before the first state of
/// the disk was taken is part of that.
fn await_listening(watch: &Watch, sandbox: &NamespaceSandbox, id: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let trail = watch.await_trail(id, "sandbox_attached");
    for number in 0.. {
        if fs::read_to_string(&trail).unwrap().contains("probe-") {
            return;
        }
        assert!(Instant::now() < deadline, "no write to {id} is told");
        fs::write(inside(sandbox, &format!("probe-{number}")), "x").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Between two scans on the interval is an hour: whatever is told sooner, an
/// event brought.
#[test]
fn writes_bring_scans_forward_and_a_full_queue_is_its_own_containers_loss() {
    let name = "writes_bring_scans_forward_and_a_full_queue_is_its_own_containers_loss";
    let Some(lab) = lab(name) else {
        return;
    };
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 1 << 20 {
        return skipped(name, &"the kernel's queue of events is very long");
    }
    let world = World::start(lab.netns()).unwrap();
    let docker = lab.docker().unwrap();
    let [calm_id, loud_id] = ["calm", "loud"].map(|name| format!("i{}{name}", lab.id()));
    let watch = watched(&lab, &docker, &["--scan-interval", "1h"]);
    let calm = contained(&lab, &world, &docker, &calm_id, 1);
    let loud = contained(&lab, &world, &docker, &loud_id, 2);
    await_listening(&watch, &calm, &calm_id);
    await_listening(&watch, &loud, &loud_id);
    // Nobody reads the queues meanwhile.
    watch.signal(Signal::STOP);
    let [one, other] = ["one", "other"].map(|name| inside(&loud, name));
    fs::write(&one, "x").unwrap();
    // Two events each, of which no two in a row are equal.
    for _ in 0..=limit / 4 {
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    }
    fs::write(inside(&loud, "last"), "x").unwrap();
    fs::write(inside(&calm, "last"), "x").unwrap();
    watch.signal(Signal::CONT);
    let last = r#""path":"/last""#;
    let trail = watch.await_trail(&loud_id, last);
    let calm_trail = watch.await_trail(&calm_id, last);
    watch.interrupt();
    let loud_records = records(&trail);
    let [gap] = of_type(&loud_records, "capture_gap")[..] else {
        panic!("{:?}", of_type(&loud_records, "capture_gap"))
    };
    let gap = &gap["payload"];
    assert_eq!(gap["cause"], "events_lost", "{gap}");
    assert_eq!(gap["layer"], "filesystem", "{gap}");
    assert_eq!(gap["source"], loud.upper().to_str().unwrap());
    assert!(of_type(&records(&calm_trail), "capture_gap").is_empty());
}
