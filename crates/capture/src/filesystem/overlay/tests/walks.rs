//! Random operations on overlays over several file systems: a scan must be
//! the difference of two full walks of the merged view.

use super::super::super::testing::{Dice, Report, has_program, is_root, oracle};
use super::super::super::{Baseline, FsConfig};
use super::{Below, Mounted, OPTIONS};
use sandtrace_event::QuiesceMethod;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const STEPS: usize = 60;
/// What a scan takes for still was changed this long before it.
const SETTLED: Duration = Duration::from_millis(1100);
/// Of a larger file head and tail are hashed.
const SMALL_BOUND: u64 = 8192;

fn fill_deeper(root: &Path) {
    for dir in ["home/a/home", "a/a"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in ["home/a/file", "home/a/home/x y", "a/a/a", "etc"] {
        fs::write(root.join(file), format!("deeper {file}")).unwrap();
    }
}

/// Rounds of all sets of options, where most files are hashed whole and where
/// many are not. In some the times of change prove what is as it was. Counts
/// the operations that were done, without those that failed.
fn walks(below: Below, rounds: usize) -> usize {
    let mut dice = Dice::new();
    let mut operations = 0;
    for number in 0..rounds * OPTIONS.len() {
        let options = OPTIONS[number % OPTIONS.len()];
        let bound = match (number / OPTIONS.len() + number) % 2 {
            0 => FsConfig::default().hash_bound,
            _ => SMALL_BOUND,
        };
        let mounted = Mounted::on(below, options, &[&oracle::fill, &fill_deeper]);
        let mut story = vec![format!("{below:?}{options}, bound {bound}")];
        let rest = (number + number / OPTIONS.len()).is_multiple_of(4);
        let rest = rest.then(|| dice.below(STEPS));
        walk(&mounted, (bound, rest), &mut dice, &mut story);
        operations += oracle::done(&story);
    }
    println!("{operations} operations were done");
    operations
}

/// `rest`: the step after which everything rests for a while.
fn walk(
    mounted: &Mounted,
    (bound, rest): (u64, Option<usize>),
    dice: &mut Dice,
    story: &mut Vec<String>,
) {
    let config = |baseline| FsConfig {
        baseline,
        hash_bound: bound,
        overlay_xattrs: mounted.xattrs(),
        ..FsConfig::default()
    };
    let root = mounted.path("merged");
    let start = oracle::view(&root);
    let mut before = start.clone();
    let mut collector = mounted.attach_with(config(Baseline::AtAttach));
    for step in 0..STEPS {
        for _ in 0..=dice.below(16) {
            story.push(oracle::operate(&root, dice));
        }
        let after = oracle::view(&root);
        let report = Report::of(&mut collector, QuiesceMethod::Live);
        oracle::check(&report, (&before, &after), bound, story);
        before = after;
        if Some(step) == rest {
            sleep(SETTLED);
            let report = Report::of(&mut collector, QuiesceMethod::Live);
            oracle::check(&report, (&before, &before), bound, story);
        }
    }
    story.push("all at once, against the lower layers".to_owned());
    let mut collector = mounted.attach_with(config(Baseline::Lowers));
    let report = Report::of(&mut collector, QuiesceMethod::Detached);
    oracle::check(&report, (&start, &before), bound, story);
}

#[test]
fn a_scan_on_tmpfs_is_the_difference_of_two_walks() {
    if is_root("a_scan_on_tmpfs_is_the_difference_of_two_walks") {
        let operations = walks(Below::Tmpfs, 4);
        assert!(operations > 14_000, "{operations}");
    }
}

#[test]
fn a_scan_on_ext4_is_the_difference_of_two_walks() {
    if is_root("a_scan_on_ext4_is_the_difference_of_two_walks") {
        let operations = walks(Below::Ext4, 2);
        assert!(operations > 7000, "{operations}");
    }
}

#[test]
fn a_scan_on_xfs_is_the_difference_of_two_walks() {
    let test = "a_scan_on_xfs_is_the_difference_of_two_walks";
    if is_root(test) && has_program(test, "mkfs.xfs") {
        let operations = walks(Below::Xfs, 2);
        assert!(operations > 7000, "{operations}");
    }
}
