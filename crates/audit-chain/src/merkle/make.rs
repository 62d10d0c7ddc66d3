//! Makes proofs in one pass over the leaves, in O(log n) memory.

use super::CompactRange;
use sandtrace_event::Digest;
use std::ops::Range;

/// The runs of leaves whose roots make a proof.
///
/// Every leaf of the tree is given to [`Plan::push_leaf`] in order; then
/// [`Plan::finish`] has the proof.
#[derive(Clone, Debug)]
pub struct Plan {
    size: u64,
    next: u64,
    /// In the order of the leaves.
    parts: Vec<Part>,
    /// The one of them that the next leaf may belong to.
    current: usize,
}

#[derive(Clone, Debug)]
struct Part {
    /// Its place in the proof.
    place: usize,
    end: u64,
    range: CompactRange,
}

/// What proves that leaf `index` is in the tree of `size` leaves (RFC 9162,
/// section 2.1.3.1); `None` where it is not.
#[must_use]
pub fn inclusion_plan(index: u64, size: u64) -> Option<Plan> {
    Some(Plan::new(size, inclusion_parts(index, size)?))
}

/// What proves that the tree of `old` leaves begins the one of `new` leaves
/// (RFC 9162, section 2.1.4.1); `None` where it cannot, or where nothing
/// could be proved: `old` is 0.
#[must_use]
pub fn consistency_plan(old: u64, new: u64) -> Option<Plan> {
    Some(Plan::new(new, consistency_parts(old, new)?))
}

/// The runs of leaves whose roots are an inclusion proof, in its order.
pub(super) fn inclusion_parts(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let mut siblings = Vec::new();
    let mut tree = 0..size;
    while tree.end - tree.start > 1 {
        tree = descend(tree, |middle| index < middle, &mut siblings);
    }
    // Found from the root down; a proof goes up.
    siblings.reverse();
    Some(siblings)
}

/// The runs of leaves whose roots are a consistency proof, in its order.
pub(super) fn consistency_parts(old: u64, new: u64) -> Option<Vec<Range<u64>>> {
    if old == 0 || old > new {
        return None;
    }
    let mut siblings = Vec::new();
    let mut tree = 0..new;
    while tree.end != old {
        tree = descend(tree, |middle| old <= middle, &mut siblings);
    }
    // The verifier has the old root; a part of the old tree it needs.
    if tree.start != 0 {
        siblings.push(tree);
    }
    siblings.reverse();
    Some(siblings)
}

/// Goes to one child of a tree of at least two leaves and keeps the other.
fn descend(
    tree: Range<u64>,
    goes_left: impl Fn(u64) -> bool,
    siblings: &mut Vec<Range<u64>>,
) -> Range<u64> {
    // The left child is the largest full tree that leaves something over.
    let leaves = tree.end - tree.start;
    let middle = tree.start + (1 << (leaves - 1).ilog2());
    let (left, right) = (tree.start..middle, middle..tree.end);
    let (child, sibling) = if goes_left(middle) {
        (left, right)
    } else {
        (right, left)
    };
    siblings.push(sibling);
    child
}

impl Plan {
    fn new(size: u64, parts: Vec<Range<u64>>) -> Self {
        let part = |(place, leaves): (usize, Range<u64>)| Part {
            place,
            end: leaves.end,
            range: CompactRange::starting_at(leaves.start),
        };
        let mut parts: Vec<_> = parts.into_iter().enumerate().map(part).collect();
        parts.sort_by_key(|part| part.end);
        Self {
            size,
            next: 0,
            parts,
            current: 0,
        }
    }

    /// The next leaf by its hash; those beyond the tree are ignored.
    pub fn push_leaf(&mut self, hash: Digest) {
        let index = self.next;
        self.next = self.next.saturating_add(1);
        if let Some(part) = self.parts.get_mut(self.current) {
            if index < part.range.begin() {
                return;
            }
            part.range.push_leaf(hash);
            if part.range.end() == part.end {
                self.current += 1;
            }
        }
    }

    /// The proof, from the leaf's sibling up; `None` before the last leaf.
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<Digest>> {
        if self.next < self.size {
            return None;
        }
        self.parts.sort_by_key(|part| part.place);
        Some(self.parts.iter().map(|part| part.range.fold()).collect())
    }
}
