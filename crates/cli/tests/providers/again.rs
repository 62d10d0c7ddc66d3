//! The same again: a watch that is started again, an id that is used again,
//! and as many threads for many sandboxes as for none.

use crate::fleet::{Watch, check_trail, of_type, records, trails_of};
use crate::support::{config, lab, started};
use rustix::process::Signal;
use sandtrace_lab::StandInForm;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[track_caller]
fn verified(trail: &Path) {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_sandtrace"));
    let verified = verify.arg("verify").arg(trail).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// The last of a trail's records, and how many there are.
fn head(trail: &Path) -> (String, usize) {
    let records = records(trail);
    let last = records.last().unwrap();
    (
        last["record_hash"].as_str().unwrap().to_owned(),
        records.len(),
    )
}

#[test]
fn a_watch_that_was_ended_in_order_begins_a_trail_that_names_the_one_before() {
    let Some(lab) = lab("a_watch_that_was_ended_in_order_begins_a_trail_that_names_the_one_before")
    else {
        return;
    };
    let watch = Watch::start(&lab, &[]);
    let id = format!("i{}stays", lab.id());
    let mut config = config(&lab, StandInForm::Firecracker, &id);
    config.boot_args = "standin.frames=100000 standin.gap_ms=20 standin.delay_ms=50".into();
    let mut vmm = started(&lab, &config);
    let first = watch.await_trail(&id, "network_egress");
    watch.end_by(Signal::TERM);
    let ended = records(&first);
    assert_eq!(
        of_type(&ended, "trail_end")[0]["payload"]["reason"],
        "interrupted"
    );
    let (hash, size) = head(&first);
    let watch = Watch::start(&lab, &[]);
    watch.await_trail(&id, "network_egress");
    let after = || {
        let mut trails = trails_of(&watch.trails, &id);
        trails.retain(|trail| *trail != first);
        trails
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while after().is_empty() {
        assert!(std::time::Instant::now() < deadline, "no second trail");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = after().pop().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    vmm.kill();
    while !fs::read_to_string(&second)
        .unwrap()
        .contains("\"trail_end\"")
    {
        assert!(std::time::Instant::now() < deadline, "no end");
        std::thread::sleep(Duration::from_millis(10));
    }
    watch.interrupt();
    // The sealed one was not touched, and the other one refers to it.
    assert_eq!(head(&first), (hash.clone(), size));
    let all = records(&second);
    let previous = &all[0]["payload"]["previous"];
    assert_eq!(previous["reason"], "sealed", "{previous}");
    assert_eq!(previous["record_hash"], hash.as_str(), "{previous}");
    assert_eq!(previous["path"], first.to_str().unwrap(), "{previous}");
    let (attached, before) = (
        of_type(&all, "sandbox_attached"),
        of_type(&ended, "sandbox_attached"),
    );
    assert_eq!(attached[0]["payload"]["vmm"], before[0]["payload"]["vmm"]);
    assert!(!of_type(&all, "network_egress").is_empty());
    verified(&first);
    verified(&second);
}

/// E2B gives an id to each resume of a sandbox anew, with another random part:
/// one after the other, and for a moment both at once.
#[test]
fn runs_of_one_id_have_trails_of_their_own() {
    let Some(lab) = lab("runs_of_one_id_have_trails_of_their_own") else {
        return;
    };
    let watch = Watch::start(&lab, &[]);
    let id = format!("i{}resumed", lab.id());
    let config = config(&lab, StandInForm::E2b, &id);
    let await_trails = |count: usize, text: &str| {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let trails = trails_of(&watch.trails, &id);
            let have = trails.iter().filter(|trail| {
                fs::read_to_string(trail).is_ok_and(|it| it.contains(text) && it.ends_with('\n'))
            });
            if have.count() == count {
                return trails;
            }
            assert!(std::time::Instant::now() < deadline, "no {count} {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Its guest runs once it is watched: the count of its frames is exact.
    let run = |number: usize| {
        let vmm = lab.stand_in(&config).unwrap();
        await_trails(number, "sandbox_attached");
        vmm.start().unwrap();
        await_trails(number, "network_egress");
        vmm
    };
    let mut first = run(1);
    std::thread::sleep(Duration::from_millis(1000));
    first.kill();
    await_trails(1, "trail_end");
    let (mut second, mut third) = (run(2), run(3));
    std::thread::sleep(Duration::from_millis(1500));
    second.kill();
    third.kill();
    let trails = await_trails(3, "trail_end");
    watch.interrupt();
    let mut pids = Vec::new();
    let mut runs = Vec::new();
    for trail in &trails {
        check_trail(trail, &id, 5);
        let all = records(trail);
        let attached: Vec<_> = of_type(&all, "sandbox_attached");
        let last: &Value = &attached.last().unwrap()["payload"];
        pids.push(last["vmm"]["pid"].as_u64().unwrap());
        runs.push(last["labels"]["e2b.run"].as_str().unwrap().to_owned());
    }
    pids.sort_unstable();
    let mut expected = [&first, &second, &third].map(|vmm| u64::from(vmm.pid()));
    expected.sort_unstable();
    assert_eq!(pids, expected);
    runs.sort();
    runs.dedup();
    assert_eq!(runs.len(), 3, "{runs:?}");
}

/// Threads of a process that stay: a scan of a disk has some for a moment.
fn threads(pid: u32) -> usize {
    let count = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.count()
    };
    let samples = (0..25).map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        count()
    });
    samples.min().unwrap()
}

#[test]
fn as_many_threads_for_many_sandboxes_as_for_none() {
    let Some(lab) = lab("as_many_threads_for_many_sandboxes_as_for_none") else {
        return;
    };
    let watch = Watch::start(&lab, &[]);
    let none = threads(watch.pid());
    let mut vmms = Vec::new();
    for number in 0..8 {
        let form = StandInForm::ALL[number % StandInForm::ALL.len()];
        let id = format!("i{}many{number}", lab.id());
        vmms.push((started(&lab, &config(&lab, form, &id)), id));
        let (_, id) = vmms.last().unwrap();
        watch.await_trail(id, "sandbox_attached");
        assert_eq!(threads(watch.pid()), none, "with {}", number + 1);
    }
    drop(vmms);
    assert_eq!(threads(watch.pid()), none);
    watch.interrupt();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
    let page = fs::read_to_string(page).unwrap();
    let stated = format!("The number of threads is fixed: {none},");
    assert!(page.contains(&stated), "docs/providers.md: {stated}");
}
