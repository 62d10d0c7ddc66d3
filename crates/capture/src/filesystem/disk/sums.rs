//! Sums of a disk's pieces: which of them changed since, where no copy of
//! the disk was kept.

use super::changed::{Ranges, in_parallel};
use super::{Blocks, pieces};
use sha2::{Digest as _, Sha256};
use std::io;
use std::ops::Range;

/// Bytes of a piece of a small disk, and of what is read of one in one go.
const PIECE: u64 = 64 << 10;
/// Most pieces: of a larger disk they are larger.
const MOST: u64 = 1 << 20;

type Sum = [u8; 16];
/// Of a piece that is all zeros, whether or not it is kept anywhere.
const ZEROS: Sum = [0; 16];

/// Half a SHA-256 of every piece: a guest cannot make two that are equal.
#[derive(Debug)]
pub(crate) struct Sums {
    piece: u64,
    size: u64,
    sums: Vec<Sum>,
}

impl Sums {
    /// Reads all of the disk that is not known to be zero.
    pub(crate) fn of(disk: &dyn Blocks) -> io::Result<Self> {
        let size = disk.size();
        let mut piece = PIECE;
        while size / piece > MOST {
            piece *= 2;
        }
        let count = usize::try_from(size.div_ceil(piece)).unwrap_or(usize::MAX);
        let sums = in_parallel(count, |index, buffer: &mut Vec<u8>| {
            let start = index as u64 * piece;
            sum(disk, start..(start + piece).min(size), buffer)
        })?;
        Ok(Self { piece, size, sums })
    }

    /// Bytes of the disk that this tells of which differ from `before`'s.
    pub(crate) fn changed(&self, before: &Self) -> Ranges {
        if self.piece != before.piece {
            return Ranges::all();
        }
        let mut ranges = Ranges::default();
        let mut start = 0;
        for (is, was) in self.sums.iter().zip(&before.sums) {
            if is != was {
                ranges.push(start..start + self.piece);
            }
            start += self.piece;
        }
        if self.size != before.size {
            ranges.push(start.min(self.size).min(before.size)..u64::MAX);
        }
        ranges
    }
}

/// Sum of a piece: of what is not zero in it, and where that is. However
/// large the piece, little of it is in memory at a time.
fn sum(disk: &dyn Blocks, piece: Range<u64>, buffer: &mut Vec<u8>) -> io::Result<Sum> {
    let mut hash = Sha256::new();
    let mut is_zero = true;
    let mut done = piece.start;
    let mut result = Ok(());
    pieces(disk, piece.clone(), &mut |range, zero| {
        if zero || result.is_err() {
            return;
        }
        // In whole parts, so that it does not matter how the bytes are kept.
        let start = range.start - (range.start - piece.start) % PIECE;
        let mut at = done.max(start);
        while at < range.end {
            let end = at.saturating_add(PIECE).min(piece.end);
            buffer.resize(usize::try_from(end - at).unwrap_or(0), 0);
            result = disk.read_exact_at(buffer, at);
            if result.is_err() {
                break;
            }
            if buffer.iter().any(|byte| *byte != 0) {
                is_zero = false;
                hash.update((at - piece.start).to_le_bytes());
                hash.update(&*buffer);
            }
            at = end;
        }
        done = done.max(at);
    })?;
    result?;
    if is_zero {
        return Ok(ZEROS);
    }
    let digest: [u8; 32] = hash.finalize().into();
    Ok(digest.first_chunk().copied().unwrap_or_default())
}
