//! Differences of two trees.

use super::*;
use crate::filesystem::tree::{Attributes, Identity, Tree, Xattrs};
use sandtrace_event::Digest;

fn file(ino: u64, content: u8) -> Entry {
    Entry {
        kind: FileKind::File,
        attributes: Some(Attributes {
            mode: 0o644,
            uid: 0,
            gid: 0,
        }),
        size: u64::from(content),
        modified: 0,
        mark: 0,
        identity: match ino {
            0 => Identity::Unknown,
            ino => Identity::Inode(ino, 7),
        },
        settled: true,
        content: Content::Hashed {
            digest: Digest([content; 32]),
            scope: HashScope::Whole,
            writes: 0,
        },
        xattrs: Xattrs::default(),
    }
}

fn tree(nodes: &[(&str, Entry)]) -> Tree {
    let mut tree = Tree::default();
    for (path, entry) in nodes {
        tree.insert(path.as_bytes().into(), Some(entry.clone()));
    }
    tree
}

/// The base of an index that holds every path.
struct Nothing;

impl Base for Nothing {
    fn traces(&self) -> Traces {
        Traces::Inodes
    }

    fn secrets(&self) -> Option<&Findings> {
        None
    }

    fn lookup(&mut self, _path: &[u8]) -> Result<Option<Entry>, Failed> {
        Ok(None)
    }

    fn content(&mut self, of: &Content) -> Content {
        panic!("{of:?} is read")
    }
}

/// The changes from `before` to `after`, and the index after.
fn list(before: &mut Tree, after: &Tree) -> (Vec<String>, Tree) {
    let mut problems = Problems::default();
    before.settle();
    let mut scan = Delta::new(before);
    for (path, node) in after.iter() {
        scan.insert(path, node);
    }
    scan.skipped().clone_from(&after.skipped);
    let mut changes = Vec::new();
    let mut add = |change: &Change, _: Option<&Findings>, _: &mut Problems| {
        changes.push(change.clone());
    };
    diff(&mut scan, 100, &mut Nothing, &mut problems, &mut add);
    assert_eq!(problems, Problems::default());
    let show = |change: &Change| {
        let from = change
            .from
            .as_ref()
            .map(|from| format!(" < {}", shown(from)));
        let from = from.unwrap_or_default();
        format!("{:?} {}{from}", change.op, shown(&change.path))
    };
    let step = scan.step();
    let mut tree = std::mem::take(before);
    tree.advance(step);
    (changes.iter().map(show).collect(), tree)
}

#[track_caller]
fn check(before: &[(&str, Entry)], after: &[(&str, Entry)], expected: &[&str]) {
    assert_eq!(list(&mut tree(before), &tree(after)).0, expected);
}

/// A file of which only head and tail were read.
fn large(ino: u64, modified: i64) -> Entry {
    let mut large = file(ino, 3);
    large.modified = modified;
    large.content = Content::Hashed {
        digest: Digest([3; 32]),
        scope: HashScope::HeadTail,
        writes: 0,
    };
    large
}

#[test]
fn a_large_file_in_place_of_another_is_not_taken_for_it() {
    let before = [("/a", large(1, 5))];
    check(&before, &[("/a", large(1, 5))], &[]);
    check(&before, &[("/a", large(1, 6))], &["Modified /a"]);
    check(&before, &[("/a", large(2, 5))], &["Modified /a"]);
}

#[test]
fn every_kind_of_change_has_its_word() {
    let readable = file(1, 3);
    let mut private = readable.clone();
    private.attributes = Some(Attributes {
        mode: 0o600,
        uid: 0,
        gid: 0,
    });
    let mut touched = readable.clone();
    (touched.modified, touched.mark) = (1, 1);
    check(
        &[("/a", file(1, 3))],
        &[("/a", file(1, 4))],
        &["Modified /a"],
    );
    check(
        &[("/a", readable.clone())],
        &[("/a", private)],
        &["Metadata /a"],
    );
    check(&[("/a", readable)], &[("/a", touched)], &[]);
    check(&[], &[("/a", file(1, 3))], &["Created /a"]);
    check(&[("/a", file(1, 3))], &[], &["Deleted /a"]);
}

#[test]
fn renames_are_paired_only_without_doubt() {
    let moved = &["Renamed /b < /a"][..];
    check(&[("/a", file(0, 3))], &[("/b", file(0, 3))], moved);
    check(&[("/a", file(1, 0))], &[("/b", file(1, 0))], moved);
    // Empty files without identity, and content that two files share.
    check(
        &[("/a", file(0, 0))],
        &[("/b", file(0, 0))],
        &["Deleted /a", "Created /b"],
    );
    check(
        &[("/a", file(0, 3))],
        &[("/b", file(0, 3)), ("/c", file(0, 3))],
        &["Deleted /a", "Created /b", "Created /c"],
    );
    // A reused inode with other content is not a move.
    check(
        &[("/a", file(1, 3))],
        &[("/b", file(1, 4))],
        &["Deleted /a", "Created /b"],
    );
    // Identity decides where content alone could not.
    check(
        &[("/a", file(1, 3)), ("/b", file(2, 3))],
        &[("/c", file(2, 3)), ("/d", file(1, 3))],
        &["Renamed /c < /b", "Renamed /d < /a"],
    );
}

#[test]
fn what_was_not_looked_at_is_no_change() {
    let mut before = tree(&[("/d", file(1, 1)), ("/d/a", file(2, 2))]);
    let mut after = tree(&[("/d", file(1, 1))]);
    after.skipped.insert((*b"/d").into());
    let (changes, mut after) = list(&mut before, &after);
    assert_eq!(changes, [""; 0]);
    // The next scan sees all and still knows what was there.
    let later = tree(&[("/d", file(1, 1)), ("/d/new", file(3, 3))]);
    assert_eq!(list(&mut after, &later).0, ["Deleted /d/a"]);
}

#[test]
fn head_and_tail_alone_prove_nothing_against_a_new_time() {
    let mut before = file(1, 9);
    before.content = Content::Hashed {
        digest: Digest([1; 32]),
        scope: HashScope::HeadTail,
        writes: 0,
    };
    let mut after = before.clone();
    check(&[("/a", before.clone())], &[("/a", after.clone())], &[]);
    after.modified = 1;
    check(&[("/a", before)], &[("/a", after)], &["Modified /a"]);
}

#[test]
fn content_that_turns_unreadable_is_a_change() {
    let mut unreadable = file(1, 3);
    unreadable.content = Content::Unreadable("checksum".into());
    let mut skipped = file(1, 3);
    skipped.content = Content::Skipped;
    let read = file(1, 3);
    check(
        &[("/a", read.clone())],
        &[("/a", unreadable.clone())],
        &["Modified /a"],
    );
    check(&[("/a", unreadable.clone())], &[("/a", unreadable)], &[]);
    check(&[("/a", read)], &[("/a", skipped)], &[]);
}

/// More than are looked at for renames: whatever is beyond is told all the same.
#[test]
fn no_change_is_lost_where_many_moved() {
    const COUNT: usize = MOST_MOVED + 500;
    let all = |dir: &str| {
        let mut tree = Tree::default();
        for number in 0..COUNT {
            let path = format!("/{dir}/{number:06}").into_bytes();
            let inode = u64::try_from(number).unwrap() + 1;
            tree.insert(path.into(), Some(file(inode, 1)));
        }
        tree
    };
    let (lines, _) = list(&mut all("b"), &all("a"));
    let count = |word: &str| lines.iter().filter(|it| it.starts_with(word)).count();
    assert_eq!((count("Created"), count("Deleted")), (COUNT, COUNT));
    let mut news: Vec<_> = lines.iter().map(|line| &line[8..]).collect();
    news.dedup();
    assert!(news.is_sorted(), "not in the order of paths");
    let (lines, _) = list(
        &mut tree(&[("/b", file(7, 1))]),
        &tree(&[("/a", file(7, 1))]),
    );
    assert_eq!(lines, ["Renamed /a < /b"]);
}
