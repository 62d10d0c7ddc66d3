//! Overlays that are written to while they are read.

use super::super::super::testing::{Dice, Report, is_root};
use super::super::super::{Baseline, FsCollector};
use super::Mounted;
use sandtrace_event::{FileOp, QuiesceMethod};
use sha2::Digest as _;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// The two places of the file that is moved to and fro.
const PLACES: [&str; 2] = ["a/x", "z/x"];

/// An overlay whose walk takes a while.
fn wide() -> Mounted {
    let mounted = Mounted::new("", &[&|_: &Path| {}]);
    for dir in ["a", "z"] {
        fs::create_dir(mounted.merged(dir)).unwrap();
    }
    for dir in 0..20 {
        let dir = mounted.merged(&format!("m{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..30 {
            fs::write(dir.join(file.to_string()), "x").unwrap();
        }
    }
    fs::write(mounted.merged(PLACES[0]), "x").unwrap();
    mounted
}

/// Moves the file until it is told to stop, now at once and now after a rest.
fn move_about(mounted: &Mounted, dice: &mut Dice, stop: &AtomicBool) {
    let mut paths = PLACES.map(|place| mounted.merged(place));
    if !paths[0].exists() {
        paths.reverse();
    }
    while !stop.load(Ordering::Relaxed) {
        fs::rename(&paths[0], &paths[1]).unwrap();
        paths.reverse();
        let rest = dice.below(11) as u64;
        sleep(Duration::from_millis(rest * rest));
    }
}

/// Ends who writes, also where the test fails: it would be waited for.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where the file is by what the records say.
fn follow(places: &mut BTreeSet<String>, report: &Report) {
    for change in &report.changes {
        for gone in change.renamed_from.iter() {
            places.remove(gone);
        }
        match change.op {
            FileOp::Deleted => _ = places.remove(&change.path),
            _ => _ = places.insert(change.path.clone()),
        }
    }
    places.retain(|path| path.ends_with("/x"));
}

fn scan(collector: &mut FsCollector) -> Report {
    let report = Report::of(collector, QuiesceMethod::Live);
    for change in &report.changes {
        let is_moving = change.quiesce_method == QuiesceMethod::Moving;
        assert_eq!(is_moving, report.summary.moved, "{change:?}");
    }
    report
}

#[test]
fn what_is_moved_meanwhile_is_never_gone_unsaid() {
    if !is_root("what_is_moved_meanwhile_is_never_gone_unsaid") {
        return;
    }
    let mounted = wide();
    let mut collector = mounted.attach(Baseline::Lowers);
    let mut places = BTreeSet::new();
    follow(&mut places, &scan(&mut collector));
    let stop = AtomicBool::new(false);
    let (mut still, mut moving) = (0, 0);
    let mut dice = Dice::new();
    std::thread::scope(|scope| {
        let end = End(&stop);
        scope.spawn(|| move_about(&mounted, &mut dice, &stop));
        for _ in 0..80 {
            let report = scan(&mut collector);
            follow(&mut places, &report);
            match report.summary.moved {
                true => moving += 1,
                false => {
                    still += 1;
                    assert_eq!(places.len(), 1, "{:?}", report.lines());
                }
            }
        }
        drop(end);
    });
    println!("{still} scans stood still, {moving} moved");
    let report = scan(&mut collector);
    assert!(!report.summary.moved);
    follow(&mut places, &report);
    let place = PLACES.iter().find(|place| mounted.merged(place).exists());
    assert_eq!(places, [format!("/{}", place.unwrap())].into());
}

#[test]
fn a_first_state_that_moved_is_told_with_what_follows_from_it() {
    let name = "a_first_state_that_moved_is_told_with_what_follows_from_it";
    if !is_root(name) {
        return;
    }
    let mounted = wide();
    let mut dice = Dice::new();
    for _ in 0..20 {
        let stop = AtomicBool::new(false);
        let mut collector = std::thread::scope(|scope| {
            let end = End(&stop);
            scope.spawn(|| move_about(&mounted, &mut dice, &stop));
            let collector = mounted.attach(Baseline::AtAttach);
            drop(end);
            collector
        });
        let report = scan(&mut collector);
        // It was somewhere at any time: a state without it is wrong.
        let mut places = BTreeSet::new();
        follow(&mut places, &report);
        let is_moved = report.changes.iter().any(|it| it.op == FileOp::Renamed);
        assert!(
            report.summary.moved || is_moved || report.changes.is_empty(),
            "{:?}",
            report.lines()
        );
        assert!(!scan(&mut collector).summary.moved);
    }
}

/// Of a file that grows, size and digest are those of one moment.
#[test]
fn size_and_digest_are_of_one_moment() {
    if !is_root("size_and_digest_are_of_one_moment") {
        return;
    }
    const MOST: usize = 1 << 20;
    let mounted = Mounted::new("", &[&|_: &Path| {}]);
    let path = mounted.merged("log");
    let mut collector = mounted.attach(Baseline::AtAttach);
    let bytes: Vec<u8> = (0..MOST).map(|at| at.to_le_bytes()[1]).collect();
    let stop = AtomicBool::new(false);
    let mut checked = 0;
    std::thread::scope(|scope| {
        let end = End(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut file = fs::File::create(&path).unwrap();
                for part in bytes.chunks(16 << 10) {
                    file.write_all(part).unwrap();
                    sleep(Duration::from_micros(500));
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
        });
        for _ in 0..200 {
            let report = scan(&mut collector);
            for change in &report.changes {
                let (Some(size), Some(digest)) = (change.size_after, change.sha256) else {
                    continue;
                };
                let size = usize::try_from(size.0).unwrap();
                let expected: [u8; 32] = sha2::Sha256::digest(&bytes[..size]).into();
                assert_eq!(digest.0, expected, "{change:?}");
                checked += 1;
            }
        }
        drop(end);
    });
    println!("{checked} states of a growing file");
}
