//! The index of one scan: what every path was.
//!
//! An index may hold a million paths, so most of it is packed: in leaves of a
//! few dozen paths each, in the order of paths, every path without what it
//! shares with the one before.

mod delta;
mod leaf;
#[cfg(test)]
mod tests;
mod xattrs;

pub(crate) use delta::{Delta, Difference, Step};
pub(crate) use xattrs::{Xattr, Xattrs};

use super::content::Content;
use super::layers::Located;
use leaf::Leaf;
use sandtrace_event::FileKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An absolute path as the sandbox sees it, `/` for the root.
pub(crate) type PathBytes = Box<[u8]>;
/// What a path is; `None`: an overlay hides it.
pub(crate) type Node = Option<Entry>;

/// Longest path that is looked at, as the kernel's PATH_MAX.
pub(crate) const MAX_PATH: usize = 4096;
/// Bytes of path and target that an index takes for each path it may hold, on
/// average.
const MEAN_TEXT: usize = 256;
/// Paths that are kept unpacked until there are this many.
const MAX_LOOSE: usize = 16 << 10;

/// Mode and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Sign that two paths at two times name the same file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    Unknown,
    /// Inode, and what tells it from a later user of the same number: birth
    /// time or generation.
    Inode(u64, u64),
    /// A file of a lower layer, seen through the overlay.
    Lower(Arc<Located>),
}

/// What a path was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: FileKind,
    /// Absent where the inode could not be read.
    pub(crate) attributes: Option<Attributes>,
    /// Bytes of a regular file, else 0.
    pub(crate) size: u64,
    /// Nanoseconds since the epoch.
    pub(crate) modified: i64,
    /// What must differ if anything of the file does: in a layer the time of
    /// its last change in nanoseconds since the epoch, in an image a keyed
    /// hash of where its blocks are.
    pub(crate) mark: i64,
    pub(crate) identity: Identity,
    /// Whether any later change must show in `mark`: it was read well
    /// after its last change, by a clock that ticks in milliseconds.
    pub(crate) settled: bool,
    pub(crate) content: Content,
    pub(crate) xattrs: Xattrs,
}

impl Entry {
    /// Whether `self`, seen earlier, proves that `now` holds the same content
    /// without reading it. True only of a file system that the sandbox does
    /// not write to directly.
    pub(crate) fn is_unchanged(&self, now: &Self) -> bool {
        self.settled
            && self.identity == now.identity
            && (self.kind, self.size) == (now.kind, now.size)
            && (self.modified, self.mark) == (now.modified, now.mark)
            && !matches!(self.content, Content::Skipped | Content::Unreadable(_))
    }
}

/// Paths of one scan. An overlay's index holds only the paths that its upper
/// dir decides; `None` is one that it hides.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// In the order of paths.
    leaves: Vec<Leaf>,
    /// Paths that are in no leaf yet, or in one that does not count any more.
    loose: BTreeMap<PathBytes, Node>,
    /// Directories of which not everything below was looked at.
    pub(crate) skipped: BTreeSet<PathBytes>,
    /// Paths in leaves.
    packed: usize,
    /// Bytes of all paths and links' targets.
    text: usize,
}

impl Tree {
    pub(crate) fn insert(&mut self, path: PathBytes, node: Node) {
        let target = match node.as_ref().map(|entry| &entry.content) {
            Some(Content::Link(target)) => target.len(),
            _ => 0,
        };
        self.text += path.len() + target;
        self.loose.insert(path, node);
        if self.loose.len() >= MAX_LOOSE {
            self.pack();
        }
    }

    /// Paths, some of which may count twice until they are packed.
    pub(crate) fn len(&self) -> usize {
        self.packed + self.loose.len()
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<Node> {
        match self.loose.get(path) {
            Some(node) => Some(node.clone()),
            None => self.find(path).map(|(_, node)| node),
        }
    }

    fn holds(&self, path: &[u8]) -> bool {
        self.len() > 0 && (self.loose.contains_key(path) || self.find(path).is_some())
    }

    /// The place of `path` in the order of packed paths, and what it is.
    fn find(&self, path: &[u8]) -> Option<(usize, Node)> {
        let leaf = self.leaves.partition_point(|leaf| *leaf.first <= *path);
        let leaf = self.leaves.get(leaf.checked_sub(1)?)?;
        let (place, node) = leaf.find(path)?;
        Some((leaf.rank + place, node))
    }

    /// Every path, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PathBytes, Node)> {
        self.from(PathBytes::default())
    }

    /// Every path, in order, each leaf of them gone once it was gone through.
    fn into_paths(mut self) -> impl Iterator<Item = (PathBytes, Node)> {
        self.pack();
        let leaves = self.leaves.into_iter();
        leaves.flat_map(|leaf| leaf.iter().collect::<Vec<_>>())
    }

    /// Every path from `start` on, in order.
    fn from(&self, start: PathBytes) -> impl Iterator<Item = (PathBytes, Node)> {
        let first = self.leaves.partition_point(|leaf| leaf.first <= start);
        let leaves = self.leaves.iter().skip(first.saturating_sub(1));
        let mut loose = self.loose.range(start.clone()..).peekable();
        let mut packed = leaves
            .flat_map(Leaf::iter)
            .skip_while(move |(path, _)| *path < start)
            .peekable();
        std::iter::from_fn(move || match (packed.peek(), loose.peek()) {
            (None, None) => None,
            (Some((packed_path, _)), Some((path, _))) if packed_path < *path => packed.next(),
            (Some(_), None) => packed.next(),
            (packed_next, Some((path, _))) => {
                // A loose one counts for a packed one of the same path.
                if packed_next.is_some_and(|(packed_path, _)| packed_path == *path) {
                    packed.next();
                }
                loose
                    .next()
                    .map(|(path, node)| (path.clone(), node.clone()))
            }
        })
    }

    /// Everything below `dir`, not itself.
    pub(crate) fn below(&self, dir: &[u8]) -> impl Iterator<Item = (PathBytes, Node)> {
        let prefix = join(dir, b"");
        let itself = prefix.clone();
        self.from(prefix.clone())
            .skip_while(move |(path, _)| *path == itself)
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Moves loose paths into leaves.
    fn pack(&mut self) {
        let loose = std::mem::take(&mut self.loose);
        self.merge(loose.into_iter(), None);
    }

    /// Lets `news` replace what their paths were, and with `seen` forgets
    /// every packed path that was not seen. All in the order of paths.
    fn merge(&mut self, news: impl Iterator<Item = (PathBytes, Node)>, seen: Option<&delta::Seen>) {
        let mut news = news.peekable();
        let leaves = std::mem::take(&mut self.leaves);
        let mut packer = leaf::Packer::default();
        let mut rest = leaves.into_iter().peekable();
        while let Some(leaf) = rest.next() {
            let next = rest.peek().map(|next| &next.first);
            let ends_before = |path: &PathBytes| next.is_none_or(|next| path < next);
            let is_whole = seen.is_none_or(|seen| seen.has_all(leaf.rank, leaf.count));
            if is_whole && !news.peek().is_some_and(|(path, _)| ends_before(path)) {
                packer.take(leaf);
                continue;
            }
            let is_seen = |place: usize| seen.is_none_or(|seen| seen.has(leaf.rank + place));
            for (place, (path, node)) in leaf.iter().enumerate() {
                while let Some((path, node)) = news.next_if(|(new, _)| *new < path) {
                    packer.add(path, &node);
                }
                match news.next_if(|(new, _)| *new == path) {
                    Some((path, node)) => packer.add(path, &node),
                    None if is_seen(place) => packer.add(path, &node),
                    None => {}
                }
            }
            while let Some((path, node)) = news.next_if(|(path, _)| ends_before(path)) {
                packer.add(path, &node);
            }
        }
        for (path, node) in news {
            packer.add(path, &node);
        }
        (self.leaves, self.packed) = packer.finish();
    }

    /// Whether one more path may enter an index of at most `max_paths`.
    fn has_room(&self, path: &[u8], others: usize, max_paths: usize) -> bool {
        path.len() <= MAX_PATH
            && self.len() + others < max_paths
            && self.text <= max_paths.saturating_mul(MEAN_TEXT)
    }

    /// Whether `path`, which the index does not hold, may exist all the same:
    /// the nearest directory above it that was looked at was not seen in full.
    pub(crate) fn skips(&self, path: &[u8]) -> bool {
        skips(&self.skipped, path, |dir| self.holds(dir))
    }
}

fn skips(skipped: &BTreeSet<PathBytes>, path: &[u8], holds: impl Fn(&[u8]) -> bool) -> bool {
    if skipped.is_empty() {
        return false;
    }
    let mut dir = parent(path);
    while let Some(path) = dir {
        if skipped.contains(path) {
            return true;
        }
        if holds(path) {
            return false;
        }
        dir = parent(path);
    }
    false
}

/// The directory that holds `path`; `None` for the root.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|byte| *byte == b'/')? {
        0 if path.len() == 1 => None,
        0 => path.get(..1),
        end => path.get(..end),
    }
}

/// `name` below `dir`.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> PathBytes {
    let separator: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, separator, name].concat().into()
}

/// Bytes as a person may read them in a reason, without control characters.
pub(crate) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}
