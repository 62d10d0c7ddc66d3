//! Where a file's bytes are on the disk, as one number to compare, and
//! whether anything was written there.

use super::super::disk::Ranges;
use super::Ext4Error;
use super::inode::Inode;
use super::volume::Volume;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

/// What was written since, by where it is on the disk.
#[derive(Debug)]
pub(in super::super) struct Touched<'a> {
    /// Bytes of the disk.
    pub(in super::super) ranges: &'a Ranges,
    /// Blocks that came from the journal when the disk was read before: what
    /// is at their place says nothing of what was read.
    pub(in super::super) journaled: &'a BTreeSet<u64>,
    /// Of a larger file only the first and the last half of so many bytes are
    /// read.
    pub(in super::super) hash_bound: u64,
}

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Layout {
    /// A keyed hash of all places: a guest cannot make two that are equal.
    pub(in super::super) mark: i64,
    /// Whether anything was written at these places, as far as can be told.
    pub(in super::super) is_touched: bool,
    /// Whether that may have been where the file is not read: amid a large
    /// one.
    pub(in super::super) is_touched_unread: bool,
}

impl Volume<'_> {
    /// Walks over the places of a file's blocks. `runs`: how many more may be
    /// looked at, which is counted down.
    pub(in super::super) fn layout(
        &self,
        file: &Inode,
        touched: Option<&Touched<'_>>,
        key: &RandomState,
        runs: &mut u64,
    ) -> Result<Layout, Ext4Error> {
        if file.is_inline() {
            return self.layout_of_inode(file, touched, key);
        }
        let size = self.block_size();
        let count = file.size.div_ceil(size);
        let mut hash = key.build_hasher();
        let mut is_touched = touched.is_none();
        let mut is_touched_unread = false;
        let unread = touched.map_or(0..0, |touched| {
            let half = touched.hash_bound / 2;
            let end = file.size.saturating_sub(half);
            // Whole blocks, so that no byte is left out.
            let blocks = half / size..end.div_ceil(size);
            if file.size > touched.hash_bound {
                blocks
            } else {
                0..0
            }
        });
        let mut logical = 0;
        while logical < count {
            *runs = runs
                .checked_sub(1)
                .ok_or(Ext4Error::Corrupt("more pieces of files than blocks"))?;
            let run = self.run_at(file, logical)?;
            let len = run.len.min(count - logical);
            hash.write_u64(logical);
            hash.write_u64(run.start.map_or(0, |start| start.saturating_add(1)));
            if let (Some(start), Some(touched)) = (run.start, touched) {
                let is_in = |logical_part: Range<u64>| {
                    let first = logical_part.start.max(logical);
                    let last = logical_part.end.min(logical.saturating_add(len));
                    let place = |block: u64| start.saturating_add(block - logical);
                    first < last && self.are_touched(place(first)..place(last), touched)
                };
                is_touched = is_touched || is_in(logical..logical.saturating_add(len));
                is_touched_unread = is_touched_unread || is_in(unread.clone());
            }
            logical += run.len;
        }
        hash.write_u64(count);
        Ok(Layout {
            mark: hash.finish().cast_signed(),
            is_touched,
            is_touched_unread,
        })
    }

    /// That of a file whose content is in its inode.
    fn layout_of_inode(
        &self,
        file: &Inode,
        touched: Option<&Touched<'_>>,
        key: &RandomState,
    ) -> Result<Layout, Ext4Error> {
        let (block, _) = self.inode_place(file.number)?;
        let is_in = |touched| self.are_touched(block..block.saturating_add(1), touched);
        Ok(Layout {
            mark: key.hash_one((block, file.size)).cast_signed(),
            is_touched: touched.is_none_or(is_in),
            is_touched_unread: false,
        })
    }

    /// Whether anything was written to these blocks, or the journal has or had
    /// another copy of one.
    fn are_touched(&self, blocks: Range<u64>, touched: &Touched<'_>) -> bool {
        let size = self.block_size();
        let bytes = blocks.start.saturating_mul(size)..blocks.end.saturating_mul(size);
        touched.ranges.touch(&bytes)
            || self.is_journaled(blocks.clone())
            || touched.journaled.range(blocks).next().is_some()
    }
}
