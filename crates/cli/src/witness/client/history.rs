//! What a trail was, read back from its files.

use sandtrace_audit_chain::TrailReader;
use sandtrace_audit_chain::merkle::{CompactRange, Growth, leaf_hash};
use sandtrace_audit_chain::segments::{self, SegmentReader};
use sandtrace_event::Digest;
use std::io;
use std::path::Path;

/// The growth of a trail from its first `old` records to its first `size`,
/// whose tree must have this root.
pub(super) fn growth(path: &Path, old: u64, size: u64, root: &Digest) -> io::Result<Growth> {
    let input = SegmentReader::open(&segments::existing(path)?)?;
    let mut lines = TrailReader::new(input);
    let mut seen = CompactRange::default();
    let mut growth = None;
    for index in 0..size {
        let line = lines.next_line().map_err(io::Error::other)?;
        let stated = line.and_then(|line| line.stated());
        let Some((_, hash)) = stated.filter(|(seq, _)| seq - 1 == index) else {
            return Err(not_signed());
        };
        if index == old {
            growth = Some(Growth::since(std::mem::take(&mut seen)));
        }
        match &mut growth {
            Some(growth) => growth.push_leaf(leaf_hash(&hash.0)),
            None => seen.push_record(&hash),
        }
    }
    let growth = growth.unwrap_or_else(|| Growth::since(seen));
    if growth.size() == size && growth.tree().root().as_ref() == Some(root) {
        Ok(growth)
    } else {
        Err(not_signed())
    }
}

fn not_signed() -> io::Error {
    let why = "the trail's files are not what its checkpoint says";
    io::Error::new(io::ErrorKind::InvalidData, why)
}
