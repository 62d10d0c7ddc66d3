//! Which deletion and which creation are one move.

use super::super::content::Content;
use super::super::tree::{Entry, Identity};
use super::{Base, Change, Traces, resolve, same_content};
use sandtrace_event::{Digest, FileKind, FileOp, HashScope};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Turns a deletion and a creation of the same thing into one `Renamed`, where
/// exactly one of each fits: first by identity, then, for files that are not
/// empty, by size and digest.
pub(super) fn pair(changes: &mut Vec<Change>, base: &mut dyn Base) {
    let mut taken = HashSet::new();
    let by_identity = pairs(changes, &taken, |entry| {
        let known = entry.identity != Identity::Unknown;
        known.then(|| (entry.kind, entry.identity.clone()))
    });
    for (old, new) in by_identity {
        join(changes, old, new, &mut taken, base);
    }
    let sizes = pairs_of_sizes(changes, &taken);
    for change in changes.iter_mut() {
        if let Some(entry) = subject(change).filter(|entry| sizes.contains(&entry.size)) {
            resolve(entry, base);
        }
    }
    for (old, new) in pairs(changes, &taken, digest_key) {
        join(changes, old, new, &mut taken, base);
    }
    let mut index = 0..;
    changes.retain(|_| index.next().is_none_or(|index| !taken.contains(&index)));
}

/// What a deletion took away or a creation brought.
fn subject(change: &mut Change) -> Option<&mut Entry> {
    match change.op {
        FileOp::Deleted => change.before.as_mut(),
        FileOp::Created => change.after.as_mut(),
        _ => None,
    }
}

/// Pairs of a deletion's and a creation's place whose keys are equal and occur
/// nowhere else.
fn pairs<K: Eq + Hash>(
    changes: &[Change],
    taken: &HashSet<usize>,
    key: impl Fn(&Entry) -> Option<K>,
) -> Vec<(usize, usize)> {
    let mut groups: HashMap<K, [Place; 2]> = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        let (side, entry) = match change.op {
            FileOp::Deleted if !taken.contains(&index) => (0, change.before.as_ref()),
            FileOp::Created => (1, change.after.as_ref()),
            _ => continue,
        };
        let group = entry
            .and_then(&key)
            .map(|key| groups.entry(key).or_default());
        if let Some(place) = group.and_then(|group| group.get_mut(side)) {
            place.add(index);
        }
    }
    let mut pairs: Vec<_> = groups
        .into_values()
        .filter_map(|[old, new]| Some((old.only()?, new.only()?)))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// No place, one, or too many.
#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    None,
    One(usize),
    Many,
}

impl Place {
    fn add(&mut self, index: usize) {
        *self = match self {
            Self::None => Self::One(index),
            _ => Self::Many,
        };
    }

    fn only(self) -> Option<usize> {
        match self {
            Self::One(index) => Some(index),
            _ => None,
        }
    }
}

/// Sizes that occur among both deleted and created files: only these are worth
/// hashing for.
fn pairs_of_sizes(changes: &[Change], taken: &HashSet<usize>) -> HashSet<u64> {
    let sizes = |op: FileOp| -> HashSet<u64> {
        let left = changes.iter().enumerate();
        let left = left.filter(|(index, change)| change.op == op && !taken.contains(index));
        left.filter_map(|(_, change)| change.after.as_ref().or(change.before.as_ref()))
            .filter(|entry| entry.kind == FileKind::File && entry.size > 0)
            .map(|entry| entry.size)
            .collect()
    };
    let created = sizes(FileOp::Created);
    let mut both = sizes(FileOp::Deleted);
    both.retain(|size| created.contains(size));
    both
}

fn digest_key(entry: &Entry) -> Option<(u64, Digest)> {
    match entry.content {
        Content::Hashed {
            digest,
            scope: HashScope::Whole,
            ..
        } if entry.size > 0 => Some((entry.size, digest)),
        _ => None,
    }
}

fn join(
    changes: &mut [Change],
    old: usize,
    new: usize,
    taken: &mut HashSet<usize>,
    base: &mut dyn Base,
) {
    let Some((path, before)) = changes
        .get(old)
        .and_then(|change| Some((change.path.clone(), change.before.clone()?)))
    else {
        return;
    };
    let Some(change) = changes.get_mut(new) else {
        return;
    };
    // Renaming a file changes its mark.
    let same = |after: &Entry| same_content(&before, after, Traces::Inodes, base);
    if change.after.as_ref().is_some_and(same) {
        change.op = FileOp::Renamed;
        change.from = Some(path);
        change.before = Some(before);
        taken.insert(old);
    }
}
