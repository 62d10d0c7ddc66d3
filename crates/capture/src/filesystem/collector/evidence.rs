//! What is left to say of a file system that cannot be read: which of its
//! bytes are not what they were.

use super::super::disk::{Blocks, Ranges};
use sandtrace_event::Digest;
use sha2::{Digest as _, Sha256};
use std::io;
use std::ops::Range;

/// Ranges that are named one by one.
const MOST_NAMED: usize = 4;
const PIECE: u64 = 1 << 20;

/// How many bytes, where, and the digest of what is there now, of at most
/// `bound` bytes. While a part of the disk cannot be read that could be before, the
/// others are compared with what they were then, too.
pub(super) fn evidence(disk: &dyn Blocks, ranges: &Ranges, bound: u64) -> String {
    let ranges = ranges.within(0, disk.size());
    let mut places: Vec<_> = ranges
        .iter()
        .map(|range| format!("{} at {}", range.end - range.start, range.start))
        .take(MOST_NAMED)
        .collect();
    match ranges.iter().count() - places.len() {
        0 => {}
        more => places.push(format!("and at {more} more places")),
    }
    let bytes = ranges.bytes();
    let digest = match digest(disk, &ranges, bound) {
        Ok(digest) if bytes > bound => format!("the first {bound} have the SHA-256 {digest}"),
        Ok(digest) => format!("they have the SHA-256 {digest}"),
        Err(error) => format!("they cannot be read: {error}"),
    };
    let places = places.join(", ");
    format!("{bytes} bytes of it differ since all of the disk was last read ({places}); {digest}")
}

fn digest(disk: &dyn Blocks, ranges: &Ranges, bound: u64) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut left = bound;
    let mut buffer = Vec::new();
    for Range { start, end } in ranges.iter() {
        let mut at = *start;
        while at < *end && left > 0 {
            let len = PIECE.min(*end - at).min(left);
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            disk.read_exact_at(&mut buffer, at)?;
            hash.update(&buffer);
            (at, left) = (at + len, left - len);
        }
    }
    Ok(Digest(hash.finalize().into()))
}
