//! What the tests of this module share.

pub(super) mod oracle;

use super::bounds::{Budget, Problems};
use super::disk::Blocks;
use super::image::{self, Old};
use super::tree::Tree;
use super::{FsCollector, ScanSummary};
use sandtrace_event::{CaptureGap, FileChange, Payload, QuiesceMethod, Timestamp, WallTime};
use std::collections::BTreeSet;
use std::hash::RandomState;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// Runs a program and fails with what it said.
#[track_caller]
pub(super) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a walk of an image found, and whether the image moved meanwhile.
pub(super) struct Walked {
    pub(super) tree: Option<Tree>,
    pub(super) problems: Problems,
    pub(super) moved: bool,
}

/// Walks an image of which nothing is known yet.
pub(super) fn walk_anew(disk: &dyn Blocks, budget: &mut Budget) -> Walked {
    let mut problems = Problems::default();
    let (nothing, journaled) = (Tree::default(), BTreeSet::new());
    let old = Old {
        tree: &nothing,
        changed: None,
        journaled: &journaled,
        key: &RandomState::new(),
        lazy: false,
    };
    let read = image::walk(disk, old, budget, &mut problems);
    Walked {
        tree: read.tree.map(|found| Tree::of(found.step())),
        moved: read.moved,
        problems,
    }
}

/// Sets an extended attribute.
#[track_caller]
pub(super) fn set_xattr(path: impl AsRef<Path>, name: &str, value: &str) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path.as_ref(), name, value.as_bytes(), flags).unwrap();
}

/// Whether this user may mount; says so if not.
pub(super) fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: {test}: needs root to mount");
    }
    is_root
}

/// Whether a program that makes what is read is there; CI has it.
pub(super) fn has_program(test: &str, name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if !has {
        assert!(std::env::var_os("CI").is_none(), "{name} is missing");
        println!("skipped: {test}: no {name}");
    }
    has
}

/// Random numbers with a seed that is printed, so that a run can be repeated.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new() -> Self {
        let seed = match std::env::var("SANDTRACE_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => now().wall.0 | 1,
        };
        println!("SANDTRACE_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // xorshift64* (Vigna 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % bound
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanoseconds = u64::try_from(since.unwrap().as_nanos()).unwrap();
    Timestamp {
        mono_us: nanoseconds / 1000,
        wall: WallTime(nanoseconds),
    }
}

/// What one scan reported.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) changes: Vec<FileChange>,
    pub(super) gaps: Vec<CaptureGap>,
    pub(super) summary: ScanSummary,
}

impl Report {
    pub(super) fn of(collector: &mut FsCollector, quiesce: QuiesceMethod) -> Self {
        let mut report = Self::default();
        let summary = collector.scan(now(), quiesce, &mut |seen| match seen.payload {
            Payload::FilesystemChange(change) => report.changes.push(change),
            Payload::CaptureGap(gap) => report.gaps.push(gap),
            other => panic!("{other:?}"),
        });
        report.summary = summary.unwrap();
        assert_eq!(report.summary.changes, report.changes.len() as u64);
        assert_eq!(report.summary.gaps, report.gaps.len() as u64);
        report
    }

    /// `Created File /path`, with what a rename came from.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |change: &FileChange| {
            let from = change.renamed_from.as_ref();
            let from = from.map_or_else(String::new, |from| format!(" < {from}"));
            format!("{:?} {:?} {}{from}", change.op, change.kind, change.path)
        };
        self.changes.iter().map(line).collect()
    }

    #[track_caller]
    pub(super) fn change(&self, path: &str) -> &FileChange {
        let found = self.changes.iter().find(|change| change.path == path);
        found.unwrap_or_else(|| panic!("{path} is not in {:#?}", self.lines()))
    }
}
