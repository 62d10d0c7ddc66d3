//! Images that are written to at the worst of moments.

use super::super::super::FsConfig;
use super::super::super::bounds::Budget;
use super::super::super::disk::{Blocks, Bytes, Noted, Place, Stamp, Sums};
use super::super::super::testing::walk_anew;
use super::{Made, home};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk that is another one from some read on, and, if it goes on, back
/// again as many reads later, and so on.
#[derive(Debug)]
struct Switching {
    states: [Arc<Bytes>; 2],
    after: u64,
    goes_on: bool,
    has_stamp: bool,
    reads: AtomicU64,
}

impl Switching {
    fn writes(&self, reads: u64) -> u64 {
        match self.goes_on {
            true => reads / self.after,
            false => u64::from(reads >= self.after),
        }
    }
}

impl Blocks for Switching {
    fn size(&self) -> u64 {
        self.states[0].size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        let state = usize::from(self.writes(reads) % 2 == 1);
        self.states[state].read_exact_at(buffer, offset)
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        self.states[0].place(offset)
    }

    fn stamp(&self) -> Option<Stamp> {
        let writes = self.writes(self.reads.load(Ordering::Relaxed));
        self.has_stamp.then(|| Stamp {
            files: vec![(self.size(), writes.cast_signed(), 0)],
            devices: Vec::new(),
        })
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        panic!("nobody asks for it")
    }
}

fn paths(disk: &dyn Blocks) -> (BTreeSet<Vec<u8>>, bool) {
    let walked = walk_anew(disk, &mut Budget::new(&FsConfig::default()));
    let tree = walked.tree.unwrap();
    let paths = tree.iter().map(|(path, _)| path.to_vec());
    (paths.collect(), walked.moved)
}

/// A disk, and what it is once a file went from a directory to another one.
fn moved_file() -> [Arc<Bytes>; 2] {
    let made = Made::new(&["-O", "^has_journal"], |root| {
        home(root);
        fs::create_dir(root.join("other")).unwrap();
    });
    let before = Bytes(fs::read(made.path()).unwrap());
    made.debugfs(&[
        "ln /home/agent/notes /other/notes",
        "unlink /home/agent/notes",
    ]);
    let after = Bytes(fs::read(made.path()).unwrap());
    [before, after].map(Arc::new)
}

/// The file goes from one to the other while these are read: it is in one of both,
/// or the answer says that the disk moved.
#[test]
fn a_walk_is_of_one_moment_or_says_that_it_is_not() {
    let states = moved_file();
    let truths = states.each_ref().map(|state| paths(&**state).0);
    assert_ne!(truths[0], truths[1]);
    let disk = |after, goes_on| Switching {
        states: states.clone(),
        after,
        goes_on,
        has_stamp: true,
        reads: AtomicU64::new(0),
    };
    let mut caught = 0;
    for at in 1.. {
        let disk = disk(at, false);
        let (seen, moved) = paths(&disk);
        let reads = disk.reads.into_inner();
        if reads < at {
            break;
        }
        assert!(!moved, "nothing moves any more after {at} reads");
        assert!(truths.contains(&seen), "written to after {at} reads");
        caught += 1;
    }
    assert!(caught > 10, "{caught}");
    for at in 1..10 {
        let disk = disk(at, true);
        assert!(paths(&disk).1, "written to at each {at} reads");
        assert!(disk.reads.into_inner() < 1000);
    }
}

/// The same where nothing tells that somebody wrote: what was read is read again.
#[test]
fn a_walk_of_a_disk_without_a_stamp_is_of_one_moment_too() {
    let states = moved_file();
    let truths = states.each_ref().map(|state| paths(&**state).0);
    let sums = Arc::new(Sums::of(&*states[0]).unwrap());
    let (mut settled, mut mixed) = (0, 0);
    for at in 1.. {
        let disk = Arc::new(Switching {
            states: states.clone(),
            after: at,
            goes_on: false,
            has_stamp: false,
            reads: AtomicU64::new(0),
        });
        let noted = Noted::new(disk.clone(), Arc::clone(&sums));
        let (seen, moved) = paths(&noted);
        if disk.reads.load(Ordering::Relaxed) < at {
            break;
        }
        let is_one = truths.contains(&seen);
        assert!(is_one || moved, "written to after {at} reads");
        (settled, mixed) = (settled + u32::from(!moved), mixed + u32::from(!is_one));
    }
    assert!(
        settled > 10 && mixed < 3,
        "{settled} settled, {mixed} mixed"
    );
}
