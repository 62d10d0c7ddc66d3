//! Sums of a disk's pieces: which of them changed since, where no copy of
//! the disk was kept.

use super::changed::{Ranges, in_parallel};
use super::{Blocks, pieces};
use sha2::{Digest as _, Sha256};
use std::io;

/// Bytes of a piece of a small disk.
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
            let range = start..(start + piece).min(size);
            let mut is_zero = true;
            pieces(disk, range.clone(), &mut |_, zero| is_zero &= zero)?;
            if is_zero {
                return Ok(ZEROS);
            }
            buffer.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
            disk.read_exact_at(buffer, start)?;
            Ok(sum(buffer))
        })?;
        Ok(Self { piece, size, sums })
    }

    /// Bytes of the disk that this tells of which differ from `before`'s.
    pub(crate) fn changed(&self, before: &Self) -> Ranges {
        if self.piece != before.piece {
            return Ranges::all();
        }
        let mut ranges = Ranges::of_grain(self.piece);
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

fn sum(bytes: &[u8]) -> Sum {
    if bytes.iter().all(|byte| *byte == 0) {
        return ZEROS;
    }
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut sum = ZEROS;
    for (to, from) in sum.iter_mut().zip(digest) {
        *to = from;
    }
    sum
}
