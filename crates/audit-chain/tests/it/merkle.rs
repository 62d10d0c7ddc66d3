//! The Merkle tree against the recursive definition, the published vectors,
//! and the tiles of a log that others signed.

use crate::corpora::corpus;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::prelude::*;
use sandtrace_audit_chain::merkle::{
    CompactRange, Growth, Inclusions, ProofError, consistency_plan, empty_root, inclusion_plan,
    leaf_hash, node_hash, verify_consistency, verify_inclusion,
};
use sandtrace_event::Digest;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn leaves(count: u64) -> Vec<Digest> {
    (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

/// MTH of RFC 6962, section 2.1, as it is written there.
pub(crate) fn naive_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// PATH of RFC 6962, section 2.1.1.
fn naive_path(index: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, sibling) = if index < left.len() {
        (naive_path(index, left), right)
    } else {
        (naive_path(index - left.len(), right), left)
    };
    path.push(naive_root(sibling));
    path
}

/// SUBPROOF of RFC 6962, section 2.1.2.
fn naive_subproof(old: usize, leaves: &[Digest], is_whole: bool) -> Vec<Digest> {
    if old == leaves.len() {
        let root = (!is_whole).then(|| naive_root(leaves));
        return root.into_iter().collect();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut proof, sibling) = if old <= left.len() {
        (naive_subproof(old, left, is_whole), right)
    } else {
        (naive_subproof(old - left.len(), right, false), left)
    };
    proof.push(naive_root(sibling));
    proof
}

/// Leaves of a trail's tree as its lines state them.
pub(crate) fn recorded_leaves(lines: &[Vec<u8>]) -> Vec<Digest> {
    let leaf = |line: &Vec<u8>| {
        let event: Value = serde_json::from_slice(line).unwrap();
        let hash: Digest = event["record_hash"].as_str().unwrap().parse().unwrap();
        leaf_hash(&hash.0)
    };
    lines.iter().map(leaf).collect()
}

fn range(begin: u64, leaves: &[Digest]) -> CompactRange {
    let mut range = CompactRange::starting_at(begin);
    leaves.iter().for_each(|leaf| range.push_leaf(*leaf));
    range
}

fn made(
    plan: Option<sandtrace_audit_chain::merkle::Plan>,
    leaves: &[Digest],
) -> Option<Vec<Digest>> {
    let mut plan = plan?;
    leaves.iter().for_each(|leaf| plan.push_leaf(*leaf));
    plan.finish()
}

#[test]
fn every_proof_of_small_trees_is_made_and_verified() {
    for size in 0..=40 {
        let leaves = leaves(size);
        let root = naive_root(&leaves);
        assert_eq!(range(0, &leaves).root(), Some(root));
        assert!(inclusion_plan(size, size).is_none());
        for (index, leaf) in (0..).zip(&leaves) {
            let proof = made(inclusion_plan(index, size), &leaves).unwrap();
            let place = usize::try_from(index).unwrap();
            assert_eq!(proof, naive_path(place, &leaves), "{index} of {size}");
            assert_eq!(verify_inclusion(index, leaf, size, &root, &proof), Ok(()));
            if size > 1 {
                let other = (index + 1) % size;
                assert!(verify_inclusion(other, leaf, size, &root, &proof).is_err());
            }
        }
        assert!(consistency_plan(0, size).is_none());
        assert!(consistency_plan(size + 1, size).is_none());
        for old in 1..=size {
            let proof = made(consistency_plan(old, size), &leaves).unwrap();
            let count = usize::try_from(old).unwrap();
            assert_eq!(proof, naive_subproof(count, &leaves, true), "{old}..{size}");
            let old_root = naive_root(&leaves[..count]);
            let verified = verify_consistency((old, &old_root), (size, &root), &proof);
            assert_eq!(verified, Ok(()), "{old}..{size}");
            if old < size {
                let swapped = verify_consistency((old, &root), (size, &old_root), &proof);
                assert!(swapped.is_err());
            }
        }
    }
}

#[test]
fn a_plan_without_all_leaves_has_no_proof() {
    let leaves = leaves(7);
    assert_eq!(made(inclusion_plan(2, 8), &leaves), None);
    // What follows the tree changes nothing.
    let short = made(inclusion_plan(2, 5), &leaves[..5]);
    assert_eq!(made(inclusion_plan(2, 5), &leaves), short);
}

proptest! {
    #[test]
    fn ranges_join_to_the_same_tree(size in 0_u64..300, cuts in prop::collection::vec(0_u64..300, 0..6)) {
        let leaves = leaves(size);
        let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut.min(size)).collect();
        cuts.extend([0, size]);
        cuts.sort_unstable();
        let mut tree = CompactRange::default();
        for pair in cuts.windows(2) {
            let [begin, end] = [pair[0], pair[1]].map(|cut| usize::try_from(cut).unwrap());
            let piece = range(pair[0], &leaves[begin..end]);
            prop_assert_eq!((piece.begin(), piece.end()), (pair[0], pair[1]));
            prop_assert!(pair[0] == 0 || piece.root().is_none());
            tree.append(&piece).unwrap();
        }
        prop_assert_eq!(&tree, &range(0, &leaves));
        prop_assert_eq!(tree.root(), Some(naive_root(&leaves)));
        let gap = CompactRange::starting_at(size + 1);
        prop_assert!(tree.append(&gap).is_err());
    }

    #[test]
    fn a_changed_proof_is_refused(size in 2_u64..200, index: u64, old: u64, at: prop::sample::Index, bit in 0_u32..8) {
        let leaves = leaves(size);
        let root = naive_root(&leaves);
        let index = index % size;
        let leaf = leaves[usize::try_from(index).unwrap()];
        let mut proof = made(inclusion_plan(index, size), &leaves).unwrap();
        let place = at.index(proof.len() * 32);
        proof[place / 32].0[place % 32] ^= 1 << bit;
        let verified = verify_inclusion(index, &leaf, size, &root, &proof);
        prop_assert_eq!(verified, Err(ProofError::Root));
        proof.pop();
        let verified = verify_inclusion(index, &leaf, size, &root, &proof);
        prop_assert!(verified.is_err());

        let old = 1 + old % (size - 1);
        let old_root = naive_root(&leaves[..usize::try_from(old).unwrap()]);
        let mut proof = made(consistency_plan(old, size), &leaves).unwrap();
        let place = at.index(proof.len() * 32);
        proof[place / 32].0[place % 32] ^= 1 << bit;
        let verified = verify_consistency((old, &old_root), (size, &root), &proof);
        prop_assert_eq!(verified, Err(ProofError::Root));
    }

    #[test]
    fn any_sizes_and_proofs_end_without_a_panic(a: u64, b: u64, length in 0_usize..70) {
        let hash = empty_root();
        let proof = vec![hash; length];
        prop_assert!(verify_inclusion(a, &hash, b, &hash, &proof).is_err() || length == 0);
        prop_assert!(verify_consistency((a, &hash), (b, &hash), &proof).is_err() || a == b);
        let _ = (inclusion_plan(a, b), consistency_plan(a, b));
    }
}

fn vectors(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(vectors(&path));
        } else {
            let value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            found.push((path, value));
        }
    }
    found
}

/// `None` where the text is no hash, which a parser refuses.
fn hash(value: &Value) -> Option<Digest> {
    let bytes = BASE64_STANDARD.decode(value.as_str()?).ok()?;
    bytes.try_into().ok().map(Digest)
}

/// The hashes of a proof; none at all may be spelled null.
fn hashes(value: &Value) -> Option<Vec<Digest>> {
    let none = Vec::new();
    value.as_array().unwrap_or(&none).iter().map(hash).collect()
}

#[test]
fn rfc6962_vectors() {
    let Some(folder) = corpus("rfc6962_vectors", "merkle/rfc6962") else {
        return;
    };
    let number = |value: &Value| value.as_u64().unwrap();
    let mut accepted = [0, 0];
    for (path, vector) in vectors(&folder.join("inclusion")) {
        let is_accepted = (|| {
            let (leaf, root) = (hash(&vector["leafHash"])?, hash(&vector["root"])?);
            let (index, size) = (number(&vector["leafIdx"]), number(&vector["treeSize"]));
            let proof = hashes(&vector["proof"])?;
            verify_inclusion(index, &leaf, size, &root, &proof).ok()
        })();
        let expected = !vector["wantErr"].as_bool().unwrap();
        assert_eq!(is_accepted.is_some(), expected, "{}", path.display());
        accepted[0] += i32::from(expected);
    }
    for (path, vector) in vectors(&folder.join("consistency")) {
        let is_accepted = (|| {
            let (old, new) = (hash(&vector["root1"])?, hash(&vector["root2"])?);
            let sizes = [number(&vector["size1"]), number(&vector["size2"])];
            let proof = hashes(&vector["proof"])?;
            verify_consistency((sizes[0], &old), (sizes[1], &new), &proof).ok()
        })();
        // Upstream does not mind that its roots here have 12 bytes.
        let has_short_roots = path.ends_with("sizes-are-equal-one-and-proof-is-empty.json");
        let expected = !vector["wantErr"].as_bool().unwrap() && !has_short_roots;
        assert_eq!(is_accepted.is_some(), expected, "{}", path.display());
        accepted[1] += i32::from(expected);
    }
    assert_eq!(accepted, [6, 5]);
}

#[test]
fn tiles_of_a_tessera_log() {
    let Some(folder) = corpus("tiles_of_a_tessera_log", "merkle/tessera-log") else {
        return;
    };
    let tile = |size: u64| fs::read(folder.join(format!("tile/0/000.p/{size}"))).unwrap();
    let leaves: Vec<_> = tile(15)
        .chunks(32)
        .map(|hash| Digest(hash.try_into().unwrap()))
        .collect();
    let entries = fs::read(folder.join("tile/entries/000.p/15")).unwrap();
    assert_eq!(entry_hashes(&entries), leaves);
    let root = |size: usize| {
        let text = fs::read_to_string(folder.join(format!("checkpoint.{size}"))).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], size.to_string());
        hash(&Value::from(lines[2])).unwrap()
    };
    for new in 0..=15_u64 {
        let count = usize::try_from(new).unwrap();
        let leaves = &leaves[..count];
        assert_eq!(range(0, leaves).root(), Some(root(count)));
        for old in 1..=new {
            let proof = made(consistency_plan(old, new), leaves).unwrap();
            let old_root = root(usize::try_from(old).unwrap());
            let verified = verify_consistency((old, &old_root), (new, &root(count)), &proof);
            assert_eq!(verified, Ok(()));
        }
    }
}

/// Entries have their length in two bytes in front of them.
fn entry_hashes(mut entries: &[u8]) -> Vec<Digest> {
    let mut hashes = Vec::new();
    while let [high, low, rest @ ..] = entries {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (entry, rest) = rest.split_at(length);
        hashes.push(leaf_hash(entry));
        entries = rest;
    }
    hashes
}

#[test]
fn growth_is_proved_without_the_leaves() {
    for size in 1..=70 {
        let leaves = leaves(size);
        for old in 0..=size {
            let (seen, appended) = leaves.split_at(usize::try_from(old).unwrap());
            let mut growth = Growth::since(range(0, seen));
            for (index, leaf) in appended.iter().enumerate() {
                if index % 3 == 0 {
                    growth.push_leaf(*leaf);
                } else {
                    let one = range(growth.size(), &[*leaf]);
                    growth.append(&one).unwrap();
                }
            }
            let expected = made(consistency_plan(old, size), &leaves);
            assert_eq!(growth.proof(), expected, "{old}..{size}");
            assert_eq!(growth.tree(), range(0, &leaves));
            assert_eq!((growth.old().end(), growth.size()), (old, size));
            assert!(growth.append(&range(size + 1, &leaves)).is_err());
        }
    }
}

#[test]
fn many_proofs_are_those_made_one_by_one() {
    for size in 0..=40 {
        let leaves = leaves(size);
        for step in 1..=5 {
            let indices = (0..size + 3).step_by(step);
            let mut many = Inclusions::new(size, indices.clone());
            for (count, leaf) in leaves.iter().enumerate() {
                assert_eq!(many.root(), None, "{count} of {size}");
                many.push_leaf(*leaf);
            }
            many.push_leaf(leaf_hash(b"beyond"));
            assert_eq!(many.root(), Some(naive_root(&leaves)));
            for index in indices {
                let expected = made(inclusion_plan(index, size), &leaves);
                assert_eq!(many.proof(index), expected, "{index} of {size}");
            }
        }
    }
}
