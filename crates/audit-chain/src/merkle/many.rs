//! Many inclusion proofs in one pass over the leaves.

use super::make::inclusion_parts;
use super::{empty_root, node_hash};
use sandtrace_event::Digest;
use std::collections::HashMap;
use std::ops::Range;

/// Makes the inclusion proofs of some leaves of one tree. Neighbours share
/// most of their hashes, which are kept once: about a kilobyte for a leaf
/// that stands alone, and less than a hundred bytes where all are wanted.
///
/// Every leaf of the tree is given to [`Self::push_leaf`] in order; then
/// [`Self::proof`] has the proofs.
#[derive(Clone, Debug)]
pub struct Inclusions {
    size: u64,
    next: u64,
    /// By its first leaf and the one after its last: a hash of some proof.
    wanted: HashMap<(u64, u64), Option<Digest>>,
    /// Full subtrees from left to right, each larger than the next.
    done: Vec<(Range<u64>, Digest)>,
}

impl Inclusions {
    /// For these leaves of a tree of `size`; others, and repeated ones, are
    /// ignored.
    #[must_use]
    pub fn new(size: u64, leaves: impl IntoIterator<Item = u64>) -> Self {
        let mut wanted = HashMap::new();
        for part in leaves
            .into_iter()
            .filter_map(|leaf| inclusion_parts(leaf, size))
            .flatten()
        {
            wanted.insert((part.start, part.end), None);
        }
        Self {
            size,
            next: 0,
            wanted,
            done: Vec::new(),
        }
    }

    /// The next leaf by its hash; those beyond the tree are ignored.
    pub fn push_leaf(&mut self, hash: Digest) {
        if self.next >= self.size {
            return;
        }
        let mut tree = (self.next..self.next + 1, hash);
        self.next += 1;
        self.note(&tree);
        while let Some((left, left_hash)) = self.done.pop_if(|(left, _)| is_sibling(left, &tree.0))
        {
            tree = (left.start..tree.0.end, node_hash(&left_hash, &tree.1));
            self.note(&tree);
        }
        self.done.push(tree);
        if self.next == self.size {
            self.note_right_edge();
        }
    }

    fn note(&mut self, (leaves, hash): &(Range<u64>, Digest)) {
        if let Some(wanted) = self.wanted.get_mut(&(leaves.start, leaves.end)) {
            *wanted = Some(*hash);
        }
    }

    /// The subtrees that are not full: what the last full ones make together.
    fn note_right_edge(&mut self) {
        let mut edge: Option<Digest> = None;
        for (leaves, hash) in self.done.iter().rev() {
            let root = edge.map_or(*hash, |right| node_hash(hash, &right));
            edge = Some(root);
            if let Some(wanted) = self.wanted.get_mut(&(leaves.start, self.size)) {
                *wanted = Some(root);
            }
        }
    }

    /// Root of the tree; `None` before its last leaf.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        let hashes = self.done.iter().rev().map(|(_, hash)| *hash);
        let root = hashes.reduce(|right, left| node_hash(&left, &right));
        (self.next == self.size).then(|| root.unwrap_or_else(empty_root))
    }

    /// The proof of one of the leaves, from its sibling up; `None` before the
    /// tree's last leaf, and for a leaf that was not asked for.
    #[must_use]
    pub fn proof(&self, leaf: u64) -> Option<Vec<Digest>> {
        let parts = inclusion_parts(leaf, self.size)?;
        let hash = |part: &Range<u64>| *self.wanted.get(&(part.start, part.end))?;
        parts.iter().map(hash).collect()
    }
}

/// Whether the two are the halves of a full subtree.
fn is_sibling(left: &Range<u64>, right: &Range<u64>) -> bool {
    let leaves = right.end - right.start;
    left.end - left.start == leaves && left.start.is_multiple_of(leaves.saturating_mul(2))
}
