//! Checks proofs (RFC 9162, sections 2.1.3.2 and 2.1.4.2).

use super::node_hash;
use sandtrace_event::Digest;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The tree has no such leaf.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// The leaf.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// The trees cannot be compared.
    #[error("a tree of {old} leaves cannot be shown to begin one of {new} leaves")]
    Sizes {
        /// Leaves of the older tree.
        old: u64,
        /// Leaves of the newer tree.
        new: u64,
    },
    /// The proof has more or fewer hashes than these sizes ask for.
    #[error("the proof has a wrong number of hashes: {found}")]
    Length {
        /// Hashes in the proof.
        found: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// Checks that the leaf `index` with this hash is in the tree of `size`
/// leaves with this root.
///
/// # Errors
/// The proof does not show it.
pub fn verify_inclusion(
    index: u64,
    leaf: &Digest,
    size: u64,
    root: &Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let wrong_length = ProofError::Length { found: proof.len() };
    let mut path = Path::new(index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        hash = match path.climb().ok_or(wrong_length)? {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
    }
    path.require_top(wrong_length)?;
    require(hash == *root)
}

/// Checks that the tree of `old.0` leaves with root `old.1` begins the tree
/// of `new.0` leaves with root `new.1`.
///
/// # Errors
/// The proof does not show it. About an empty tree there is nothing to show.
pub fn verify_consistency(
    old: (u64, &Digest),
    new: (u64, &Digest),
    proof: &[Digest],
) -> Result<(), ProofError> {
    let ((old, old_root), (new, new_root)) = (old, new);
    if old == 0 || old > new {
        return Err(ProofError::Sizes { old, new });
    }
    let wrong_length = ProofError::Length { found: proof.len() };
    if old == new {
        return if proof.is_empty() {
            require(old_root == new_root)
        } else {
            Err(wrong_length)
        };
    }
    let (first, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(wrong_length)?
    };
    let mut path = Path::new(old - 1, new - 1);
    path.skip_right_children();
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        match path.climb().ok_or(wrong_length)? {
            Side::Left => {
                old_hash = node_hash(sibling, &old_hash);
                new_hash = node_hash(sibling, &new_hash);
            }
            Side::Right => new_hash = node_hash(&new_hash, sibling),
        }
    }
    path.require_top(wrong_length)?;
    require(old_hash == *old_root && new_hash == *new_root)
}

fn require(same: bool) -> Result<(), ProofError> {
    if same { Ok(()) } else { Err(ProofError::Root) }
}

/// Where the sibling stands.
enum Side {
    Left,
    Right,
}

/// The way from a node to the root; `fn` and `sn` of the RFC.
struct Path {
    node: u64,
    last: u64,
}

impl Path {
    fn new(node: u64, last: u64) -> Self {
        Self { node, last }
    }

    /// One step; `None` at the root.
    fn climb(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let side = if self.node & 1 == 1 {
            Side::Left
        } else if self.node == self.last {
            // The last node of an odd row rises until it has a sibling.
            while self.node & 1 == 0 && self.node != 0 {
                self.shift();
            }
            Side::Left
        } else {
            Side::Right
        };
        self.shift();
        Some(side)
    }

    /// From the old tree's last leaf to the largest full tree it ends.
    fn skip_right_children(&mut self) {
        while self.node & 1 == 1 {
            self.shift();
        }
    }

    fn require_top(&self, otherwise: ProofError) -> Result<(), ProofError> {
        if self.last == 0 {
            Ok(())
        } else {
            Err(otherwise)
        }
    }

    fn shift(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }
}
