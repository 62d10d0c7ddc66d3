//! A scan against the index of the scan before: only what differs is kept anew.

use super::leaf::Leaf;
use super::{Node, PathBytes, Tree, skips};
use std::collections::BTreeSet;

/// Which packed paths of an index were found again as they were.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bits: Vec<u64>,
    count: usize,
}

impl Seen {
    fn of(len: usize) -> Self {
        Self {
            bits: vec![0; len.div_ceil(64)],
            count: 0,
        }
    }

    fn set(&mut self, place: usize) {
        if let Some(bits) = self.bits.get_mut(place / 64) {
            let bit = 1 << (place % 64);
            self.count += usize::from(*bits & bit == 0);
            *bits |= bit;
        }
    }

    fn unset(&mut self, place: usize) {
        if let Some(bits) = self.bits.get_mut(place / 64) {
            let bit = 1 << (place % 64);
            self.count -= usize::from(*bits & bit != 0);
            *bits &= !bit;
        }
    }

    pub(super) fn has(&self, place: usize) -> bool {
        let bits = self.bits.get(place / 64).copied().unwrap_or(0);
        bits >> (place % 64) & 1 == 1
    }

    pub(super) fn has_all(&self, first: usize, count: usize) -> bool {
        (first..first + count).all(|place| self.has(place))
    }
}

/// What a scan found, as the difference from an index.
#[derive(Debug)]
pub(crate) struct Delta<'a> {
    before: &'a Tree,
    seen: Seen,
    /// What is not as it was.
    own: Tree,
}

/// What the next index is made of, without the one before.
#[derive(Debug)]
pub(crate) struct Step {
    seen: Seen,
    own: Tree,
}

impl<'a> Delta<'a> {
    /// `before` must have no loose paths; see [`Tree::settle`].
    pub(crate) fn new(before: &'a Tree) -> Self {
        Self {
            before,
            seen: Seen::of(before.packed),
            own: Tree::default(),
        }
    }

    pub(crate) fn insert(&mut self, path: PathBytes, node: Node) {
        match self.before.find(&path) {
            Some((place, was)) if was == node && !self.own.holds(&path) => self.seen.set(place),
            Some((place, _)) => {
                self.seen.unset(place);
                self.own.insert(path, node);
            }
            None => self.own.insert(path, node),
        }
    }

    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        let was_seen = |(place, _)| self.seen.has(place);
        self.before.find(path).is_some_and(was_seen) || self.own.holds(path)
    }

    pub(crate) fn len(&self) -> usize {
        self.seen.count + self.own.len()
    }

    pub(crate) fn has_room(&self, path: &[u8], max_paths: usize) -> bool {
        self.has_room_beside(0, path, max_paths)
    }

    /// Whether there is room for one more path beside `others`.
    pub(crate) fn has_room_beside(&self, others: usize, path: &[u8], max_paths: usize) -> bool {
        let others = self.seen.count.saturating_add(others);
        self.own.has_room(path, others, max_paths)
    }

    pub(crate) fn skipped(&mut self) -> &mut BTreeSet<PathBytes> {
        &mut self.own.skipped
    }

    /// Whether there are directories of which not everything was looked at.
    pub(crate) fn is_partial(&self) -> bool {
        !self.own.skipped.is_empty()
    }

    pub(crate) fn skips(&self, path: &[u8]) -> bool {
        skips(&self.own.skipped, path, |dir| self.contains(dir))
    }

    /// Takes over a path of the index before as it was.
    pub(crate) fn keep(&mut self, place: usize) {
        self.seen.set(place);
    }

    /// Everything that is not as it was: of the index before each path, with
    /// its place there, that was not seen again, and each that is new or
    /// differs. In the order of paths, one at a time: there may be millions.
    pub(crate) fn differences(&self) -> impl Iterator<Item = Difference> {
        let leaves = self.before.leaves.iter();
        let leaves = leaves.filter(|leaf| !self.seen.has_all(leaf.rank, leaf.count));
        let placed = |leaf: &'a Leaf| {
            let paths = leaf.iter().enumerate();
            paths.map(|(place, (path, was))| (path, (leaf.rank + place, was)))
        };
        let mut olds = leaves.flat_map(placed).peekable();
        let mut news = self.own.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let next = olds.peek().map(|(path, _)| path);
                let is_before = |new: &PathBytes| next.is_none_or(|old| new < old);
                if let Some((path, is)) = news.next_if(|(new, _)| is_before(new)) {
                    return Some(Difference::new(path, is));
                }
                let (path, was) = olds.next()?;
                let is = news.next_if(|(new, _)| *new == path).map(|(_, is)| is);
                if is.is_some() || !self.seen.has(was.0) {
                    let was = Some(was);
                    return Some(Difference { path, was, is });
                }
            }
        })
    }

    /// Lets go of the index before.
    pub(crate) fn step(self) -> Step {
        Step {
            seen: self.seen,
            own: self.own,
        }
    }

    /// The index before.
    pub(crate) fn before(&self) -> &'a Tree {
        self.before
    }
}

/// A path that is not as it was.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) path: PathBytes,
    /// Its place in the index before, and what it was.
    pub(crate) was: Option<(usize, Node)>,
    pub(crate) is: Option<Node>,
}

impl Difference {
    fn new(path: PathBytes, is: Node) -> Self {
        Self {
            path,
            was: None,
            is: Some(is),
        }
    }
}

impl Tree {
    /// The index of a scan that had none before.
    pub(crate) fn of(step: Step) -> Self {
        let mut tree = step.own;
        tree.settle();
        tree
    }

    /// Makes the index before into that of the scan.
    pub(crate) fn advance(&mut self, step: Step) {
        let Step { seen, mut own } = step;
        self.text = own.text.max(self.text);
        self.skipped = std::mem::take(&mut own.skipped);
        self.merge(own.into_paths(), Some(&seen));
    }

    /// Readies the index to be compared with.
    pub(crate) fn settle(&mut self) {
        self.pack();
        self.leaves.shrink_to_fit();
    }
}
