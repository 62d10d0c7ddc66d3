//! Sums of a disk's pieces: which of them changed since, where no copy of
//! the disk was kept.

use super::changed::{Ranges, in_parallel};
use super::{Blocks, Stamp, pieces};
use sha2::{Digest as _, Sha256};
use std::io;
use std::ops::Range;

/// Bytes of a piece of a small disk, and of what is read of one in one go.
const PIECE: u64 = 64 << 10;
/// Most pieces: of a larger disk they are larger.
const MOST: u64 = 1 << 20;

pub(super) type Sum = [u8; 16];
/// Of a piece that is all zeros, whether or not it is kept anywhere.
const ZEROS: Sum = [0; 16];

/// Half a SHA-256 of every piece: a guest cannot make two that are equal.
#[derive(Debug)]
pub(crate) struct Sums {
    piece: u64,
    size: u64,
    sums: Vec<Sum>,
    /// Which pieces were wholly those of the disk below.
    of_below: Vec<bool>,
    /// When that was written to last, if it is known.
    below: Option<Stamp>,
}

impl Sums {
    /// Reads all of the disk that is not known to be zero.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of(disk: &dyn Blocks) -> io::Result<Self> {
        Self::since(None, disk, None)
    }

    /// Reads of the disk what is not known to be zero, nor to be what it was at
    /// `before`: a piece that only the disk `below` has, then and now, while
    /// nobody wrote to that one.
    pub(crate) fn since(
        before: Option<&Self>,
        disk: &dyn Blocks,
        below: Option<(&dyn Blocks, Stamp)>,
    ) -> io::Result<Self> {
        let size = disk.size();
        let mut piece = PIECE;
        while size / piece > MOST {
            piece *= 2;
        }
        let count = usize::try_from(size.div_ceil(piece)).unwrap_or(usize::MAX);
        let same = |before: &&Self| {
            let stamp = below.as_ref().map(|(_, stamp)| stamp);
            before.below.as_ref() == stamp && (before.piece, before.size) == (piece, size)
        };
        let before = before.filter(|_| below.is_some()).filter(same);
        let found = in_parallel(count, |index, buffer: &mut Vec<u8>| {
            let start = index as u64 * piece;
            let range = start..(start + piece).min(size);
            let of_below = match &below {
                Some((below, _)) => is_of_below(disk, *below, range.clone())?,
                None => false,
            };
            let known = before.filter(|_| of_below);
            match known.and_then(|before| before.kept(index)) {
                Some(sum) => Ok((sum, of_below)),
                None => Ok((sum(disk, range, buffer)?, of_below)),
            }
        })?;
        let (sums, of_below) = found.into_iter().unzip();
        Ok(Self {
            piece,
            size,
            sums,
            of_below,
            below: below.map(|(_, stamp)| stamp),
        })
    }

    /// Which pieces these bytes are in.
    pub(super) fn pieces(&self, bytes: Range<u64>) -> Range<usize> {
        let number = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        number(bytes.start / self.piece)..number(bytes.end.div_ceil(self.piece))
    }

    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    pub(super) fn get(&self, piece: usize) -> Option<Sum> {
        self.sums.get(piece).copied()
    }

    /// What the sums of these pieces are now.
    pub(super) fn again(&self, disk: &dyn Blocks, of: &[usize]) -> io::Result<Vec<Sum>> {
        in_parallel(of.len(), |index, buffer: &mut Vec<u8>| {
            let piece = of.get(index).copied().unwrap_or_default();
            let start = piece as u64 * self.piece;
            sum(disk, start..(start + self.piece).min(self.size), buffer)
        })
    }

    /// Sum of a piece of the disk below.
    fn kept(&self, index: usize) -> Option<Sum> {
        let is_kept = self.of_below.get(index).copied()?;
        self.sums.get(index).copied().filter(|_| is_kept)
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

/// Whether all of a piece is where the disk below has it.
fn is_of_below(disk: &dyn Blocks, below: &dyn Blocks, piece: Range<u64>) -> io::Result<bool> {
    let mut at = piece.start;
    while at < piece.end.min(below.size()) {
        let (own, len) = disk.place(at)?;
        let (its, its_len) = below.place(at)?;
        if !own.is_same(its) {
            return Ok(false);
        }
        at = at.saturating_add(len.min(its_len).max(1));
    }
    Ok(piece.end <= below.size())
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
