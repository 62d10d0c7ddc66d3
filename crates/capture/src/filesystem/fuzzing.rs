//! What the fuzz targets call: readers of whatever a guest may have written,
//! given as bytes. There is nothing to return: they must end, soon.

use super::bounds::{Budget, Problems};
use super::config::{FsConfig, OverlayXattrs};
use super::disk::{Blocks, Bytes, E2bHeader, Qcow2, Sums, pieces};
use super::image::{Old, parts, walk};
use super::layers::{Target, parse_redirect};
use super::mountinfo::mounts_for_upper;
use super::tree::Tree;
use std::collections::BTreeSet;
use std::hash::RandomState;
use std::sync::Arc;

/// Reads a file system.
pub fn ext4(bytes: &[u8]) {
    read(&Bytes(bytes.to_vec()));
}

/// Reads every file system that a partition table names.
pub fn partition(bytes: &[u8]) {
    let disk: Arc<dyn Blocks> = Arc::new(Bytes(bytes.to_vec()));
    for part in parts(&disk).iter().take(4) {
        read(&*part.disk);
    }
}

/// Reads what a kernel says of mounts, some of which a sandbox made.
pub fn mountinfo(bytes: &[u8]) {
    let _layers = mounts_for_upper(bytes, std::path::Path::new("/u")).count();
}

/// Reads what an attribute of an upper dir says, and what its name is to the
/// sandbox: whoever has the upper dir in a container writes both.
///
/// # Panics
/// Where a redirect would lead out of its layer, or a mark of the kernel's own
/// be taken for the sandbox's.
pub fn overlay_marks(bytes: &[u8]) {
    let is_plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/');
    match parse_redirect(bytes) {
        Ok(Target::Name(name)) => assert!(is_plain(&name), "{name:?}"),
        Ok(Target::Absolute(path)) => {
            assert!(path.split(|byte| *byte == b'/').all(is_plain), "{path:?}");
        }
        Err(_) => {}
    }
    for (xattrs, own) in [
        (OverlayXattrs::FOLLOWED, &b"trusted.overlay."[..]),
        (OverlayXattrs::User, b"user.overlay."),
        (OverlayXattrs::Ignored, b"none"),
    ] {
        let seen = xattrs.as_seen_inside(bytes);
        let is_own = bytes.strip_prefix(own);
        let is_own = is_own.is_some_and(|mark| !mark.starts_with(b"overlay."));
        assert!(seen.is_none() || !is_own || xattrs == OverlayXattrs::Ignored);
        assert!(seen.is_some_and(|seen| seen.len() <= bytes.len()) || is_own);
    }
}

/// Reads the header of an E2B snapshot.
pub fn e2b_header(bytes: &[u8]) {
    let _refused = E2bHeader::parse(bytes);
}

/// Reads a qcow2 image of at most 64 MiB, in pieces and as a whole.
pub fn qcow2(bytes: &[u8]) {
    let Ok(disk) = Qcow2::alone(Arc::new(Bytes(bytes.to_vec()))) else {
        return;
    };
    let size = disk.size().min(64 << 20);
    let mut buffer = [0; 700];
    let _unreadable = pieces(&disk, 0..size, &mut |range, _| {
        let _beyond = disk.read_exact_at(&mut buffer, range.start);
    });
    if disk.size() <= size {
        let _unreadable = Sums::of(&disk);
    }
}

fn read(disk: &dyn Blocks) {
    let config = FsConfig {
        hash_bound: 1 << 16,
        hash_budget: 4 << 20,
        max_paths: 10_000,
        ..FsConfig::default()
    };
    let (mut budget, mut problems) = (Budget::new(&config), Problems::default());
    let (tree, journaled) = (Tree::default(), BTreeSet::new());
    let old = Old {
        tree: &tree,
        changed: None,
        journaled: &journaled,
        key: &RandomState::new(),
        lazy: false,
    };
    walk(disk, old, &mut budget, &mut problems);
}
