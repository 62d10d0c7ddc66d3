//! The index of one scan: what every path was.

use super::content::Content;
use super::layers::Located;
use sandtrace_event::FileKind;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// An absolute path as the sandbox sees it, `/` for the root.
pub(crate) type PathBytes = Box<[u8]>;

/// Longest path that is looked at, as the kernel's PATH_MAX.
pub(crate) const MAX_PATH: usize = 4096;
/// Bytes of path and target that an index takes for each path it may hold, on
/// average.
const MEAN_TEXT: usize = 256;

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
    /// Nanoseconds since the epoch.
    pub(crate) changed: i64,
    pub(crate) identity: Identity,
    /// Whether any later change must show in `changed`: it was read well
    /// after its last change, by a clock that ticks in milliseconds.
    pub(crate) settled: bool,
    pub(crate) content: Content,
}

impl Entry {
    /// Whether `self`, seen earlier, proves that `now` holds the same content
    /// without reading it. True only of a file system that the sandbox does
    /// not write to directly.
    pub(crate) fn is_unchanged(&self, now: &Self) -> bool {
        self.settled
            && self.identity == now.identity
            && (self.kind, self.size) == (now.kind, now.size)
            && (self.modified, self.changed) == (now.modified, now.changed)
            && !matches!(self.content, Content::Skipped | Content::Unreadable(_))
    }
}

/// Paths of one scan. An overlay's index holds only the paths that its upper
/// dir decides; `None` is one that it hides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<PathBytes, Option<Entry>>,
    /// Directories of which not everything below was looked at.
    pub(crate) skipped: BTreeSet<PathBytes>,
    /// Bytes of all paths and links' targets.
    text: usize,
}

impl Tree {
    pub(crate) fn insert(&mut self, path: PathBytes, node: Option<Entry>) {
        let target = match node.as_ref().map(|entry| &entry.content) {
            Some(Content::Link(target)) => target.len(),
            _ => 0,
        };
        self.text += path.len() + target;
        self.nodes.insert(path, node);
    }

    /// Whether one more path may enter an index of at most `max_paths`.
    pub(crate) fn has_room(&self, path: &[u8], max_paths: usize) -> bool {
        path.len() <= MAX_PATH
            && self.nodes.len() < max_paths
            && self.text <= max_paths.saturating_mul(MEAN_TEXT)
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<&Option<Entry>> {
        self.nodes.get(path)
    }

    /// Whether `path`, which the index does not hold, may exist all the same:
    /// the nearest directory above it that was looked at was not seen in full.
    pub(crate) fn skips(&self, path: &[u8]) -> bool {
        if self.skipped.is_empty() {
            return false;
        }
        let mut dir = parent(path);
        while let Some(path) = dir {
            if self.skipped.contains(path) {
                return true;
            }
            if self.nodes.contains_key(path) {
                return false;
            }
            dir = parent(path);
        }
        false
    }

    /// Everything below `dir`, not itself.
    pub(crate) fn below(&self, dir: &[u8]) -> impl Iterator<Item = (&PathBytes, &Option<Entry>)> {
        let prefix = join(dir, b"");
        let start: Bound<&[u8]> = Bound::Excluded(&prefix);
        self.nodes
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            tree.nodes.insert(path.as_bytes().into(), None);
        }
        tree
    }

    #[track_caller]
    fn check_below(dir: &str, expected: &[&str]) {
        let tree = tree(&["/", "/a", "/a-b", "/a/b", "/a/b/c", "/ab"]);
        let below: Vec<_> = tree
            .below(dir.as_bytes())
            .map(|(path, _)| str::from_utf8(path).unwrap())
            .collect();
        assert_eq!(below, expected, "{dir}");
    }

    #[test]
    fn below_takes_whole_names() {
        check_below("/a", &["/a/b", "/a/b/c"]);
        check_below("/", &["/a", "/a-b", "/a/b", "/a/b/c", "/ab"]);
        check_below("/ab", &[]);
    }

    #[test]
    fn only_what_was_not_looked_at_may_exist_unseen() {
        let mut tree = tree(&["/", "/a", "/a/b", "/c"]);
        assert!(!tree.skips(b"/a/x"));
        tree.skipped.insert((*b"/a").into());
        let table = [
            ("/a/x", true),
            ("/a/x/y", true),
            ("/a/b/x", false),
            ("/c/x", false),
            ("/x", false),
            ("/", false),
        ];
        for (path, skips) in table {
            assert_eq!(tree.skips(path.as_bytes()), skips, "{path}");
        }
    }

    #[test]
    fn parents_end_at_the_root() {
        let up = |path: &'static str| parent(path.as_bytes());
        assert_eq!(up("/a/b"), Some(&b"/a"[..]));
        assert_eq!(up("/a"), Some(&b"/"[..]));
        assert_eq!(up("/"), None);
    }
}
