//! A run of leaves, kept as the roots of its largest aligned subtrees.

use super::{empty_root, leaf_hash, node_hash};
use sandtrace_event::Digest;
use std::ops::Range;

/// The leaves from `begin` to `end` (exclusive) of a tree, in O(log n).
///
/// Ranges of neighbouring leaves can be made independently of each other and
/// joined later; one that begins at 0 is a tree and has a root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactRange {
    begin: u64,
    end: u64,
    /// From left to right; where none can be joined with its neighbour.
    nodes: Vec<Node>,
}

/// Root of the subtree over 2^level leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    level: u32,
    hash: Digest,
}

/// The range that was to be appended begins elsewhere than where this ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a range of leaves that begins at {begin} cannot follow one that ends at {end}")]
pub struct NotAdjacent {
    /// End of the left range.
    pub end: u64,
    /// Begin of the right range.
    pub begin: u64,
}

impl CompactRange {
    /// An empty range that the leaf `begin` will be the first of.
    #[must_use]
    pub fn starting_at(begin: u64) -> Self {
        Self {
            begin,
            end: begin,
            nodes: Vec::new(),
        }
    }

    /// First leaf.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// One more than the last leaf: the size, where this is a tree.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends the leaf of a record.
    pub fn push_record(&mut self, record_hash: &Digest) {
        self.push_leaf(leaf_hash(&record_hash.0));
    }

    /// Appends a leaf by its hash.
    pub fn push_leaf(&mut self, hash: Digest) {
        self.push(Node { level: 0, hash });
    }

    /// Appends the leaves that follow.
    ///
    /// # Errors
    /// [`NotAdjacent`] where they do not follow.
    pub fn append(&mut self, next: &Self) -> Result<(), NotAdjacent> {
        if self.end != next.begin {
            return Err(NotAdjacent {
                end: self.end,
                begin: next.begin,
            });
        }
        for &node in &next.nodes {
            self.push(node);
        }
        Ok(())
    }

    /// Root of the tree; `None` where the range does not begin at 0.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        (self.begin == 0).then(|| self.fold())
    }

    /// Root over some of these leaves, which whole subtrees of this range must
    /// make up; `None` where they do not.
    pub(super) fn root_of(&self, leaves: &Range<u64>) -> Option<Digest> {
        let mut part = Self::starting_at(leaves.start);
        let mut start = self.begin;
        for &node in &self.nodes {
            if start >= leaves.start && start < leaves.end {
                part.push(node);
            }
            start = start.saturating_add(1 << node.level);
        }
        let is_whole = !part.nodes.is_empty() && part.end == leaves.end;
        is_whole.then(|| part.fold())
    }

    /// Root over these leaves alone, as if the first were leaf 0. Right only
    /// where the range begins at a multiple of the subtrees it consists of,
    /// which every range of a proof does.
    pub(super) fn fold(&self) -> Digest {
        let hashes = self.nodes.iter().rev().map(|node| node.hash);
        let root = hashes.reduce(|right, left| node_hash(&left, &right));
        root.unwrap_or_else(empty_root)
    }

    /// `node` stands at `end`, which is a multiple of its number of leaves.
    fn push(&mut self, mut node: Node) {
        // 2^64 leaves are out of reach; nothing wraps before them.
        self.end = self.end.saturating_add(1 << node.level);
        while let Some(&left) = self.nodes.last() {
            // Siblings have one level, and their parent stands where its own
            // number of leaves divides.
            let parent = self.end.saturating_sub(2 << node.level);
            if left.level != node.level || !parent.is_multiple_of(2 << node.level) {
                break;
            }
            self.nodes.pop();
            node = Node {
                level: node.level + 1,
                hash: node_hash(&left.hash, &node.hash),
            };
        }
        self.nodes.push(node);
    }
}
