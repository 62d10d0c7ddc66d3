//! The Merkle tree over a trail's records (RFC 6962, section 2.1; RFC 9162,
//! section 2.1).
//!
//! Leaf `i` is the record with seq `i + 1`: SHA-256(0x00 || the 32 bytes of
//! its `record_hash`). [`CompactRange`] holds a tree, or a piece of one, in
//! O(log n); [`inclusion_plan`] and [`consistency_plan`] make proofs in one
//! pass over the leaves, [`Inclusions`] makes many at once, and [`Growth`] has
//! a consistency proof ready without the leaves; [`verify_inclusion`] and
//! [`verify_consistency`] check them.

mod growth;
mod make;
mod many;
mod proof;
mod range;

pub use growth::Growth;
pub use make::{Plan, consistency_plan, inclusion_plan};
pub use many::Inclusions;
pub use proof::{ProofError, verify_consistency, verify_inclusion};
pub use range::{CompactRange, NotAdjacent};

use sandtrace_event::Digest;
use sha2::{Digest as _, Sha256};

/// Hash of a leaf with this content.
#[must_use]
pub fn leaf_hash(content: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(content);
    Digest(hasher.finalize().into())
}

/// Hash of an inner node.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    // One buffer, so that the hash takes its two blocks in one call.
    let mut content = [1; 65];
    let (_, children) = content.split_at_mut(1);
    let (first, second) = children.split_at_mut(32);
    first.copy_from_slice(&left.0);
    second.copy_from_slice(&right.0);
    Digest(Sha256::digest(content).into())
}

/// Root of the tree without leaves.
#[must_use]
pub fn empty_root() -> Digest {
    Digest(Sha256::digest([]).into())
}
