//! Consistency proofs without the leaves.

use super::make::consistency_parts;
use super::{CompactRange, NotAdjacent};
use sandtrace_event::Digest;
use std::ops::Range;

/// A tree as somebody saw it, and what was appended since: what proves to
/// them at any time that it only grew, in O(log n).
///
/// Every hash of a consistency proof is a subtree of the old tree, or the
/// root of leaves that are all behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    old: CompactRange,
    since: CompactRange,
}

impl Growth {
    /// Begins with the tree that they saw; a range that does not begin with
    /// leaf 0 proves nothing.
    #[must_use]
    pub fn since(old: CompactRange) -> Self {
        Self {
            since: CompactRange::starting_at(old.end()),
            old,
        }
    }

    /// The tree that they saw.
    #[must_use]
    pub fn old(&self) -> &CompactRange {
        &self.old
    }

    /// Leaves of the tree as it is now.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.since.end()
    }

    /// Appends a leaf by its hash.
    pub fn push_leaf(&mut self, hash: Digest) {
        self.since.push_leaf(hash);
    }

    /// Appends the leaves that follow.
    ///
    /// # Errors
    /// [`NotAdjacent`] where they do not follow.
    pub fn append(&mut self, next: &CompactRange) -> Result<(), NotAdjacent> {
        self.since.append(next)
    }

    /// The tree as it is now.
    #[must_use]
    pub fn tree(&self) -> CompactRange {
        let mut tree = self.old.clone();
        // `since` begins where `old` ends, from its first leaf on.
        let appended = tree.append(&self.since);
        debug_assert!(appended.is_ok());
        tree
    }

    /// The proof in the order of RFC 9162, section 2.1.4.1; `None` where the
    /// old tree is empty, about which nothing can be proved.
    #[must_use]
    pub fn proof(&self) -> Option<Vec<Digest>> {
        let old = self.old.end();
        let hash = |part: &Range<u64>| {
            let range = if part.end <= old {
                &self.old
            } else {
                &self.since
            };
            range.root_of(part)
        };
        let parts = consistency_parts(old, self.size())?;
        parts.iter().map(hash).collect()
    }
}
