//! Where a file's bytes are on the disk, as one number to compare, and
//! whether anything was written there.

use super::super::disk::Ranges;
use super::Ext4Error;
use super::inode::Inode;
use super::volume::Volume;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};

/// What was written since, by where it is on the disk.
#[derive(Debug)]
pub(in super::super) struct Touched<'a> {
    /// Bytes of the disk.
    pub(in super::super) ranges: &'a Ranges,
    /// Blocks that came from the journal when the disk was read before: what
    /// is at their place says nothing of what was read.
    pub(in super::super) journaled: &'a BTreeSet<u64>,
}

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Layout {
    /// A keyed hash of all places: a guest cannot make two that are equal.
    pub(in super::super) mark: i64,
    /// Whether anything was written at these places, as far as can be told.
    pub(in super::super) is_touched: bool,
    /// Whether anything at these places surely differs.
    pub(in super::super) is_written: bool,
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
        let size = self.block_size();
        let count = file.size.div_ceil(size);
        let mut hash = key.build_hasher();
        let mut is_touched = touched.is_none();
        let mut is_written = false;
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
                let blocks = start..start.saturating_add(len);
                let bytes = start.saturating_mul(size)..blocks.end.saturating_mul(size);
                is_written = is_written || touched.ranges.are_within(&bytes);
                is_touched = is_touched
                    || touched.ranges.touch(&bytes)
                    || self.is_journaled(blocks.clone())
                    || touched.journaled.range(blocks).next().is_some();
            }
            logical += run.len;
        }
        hash.write_u64(count);
        Ok(Layout {
            mark: hash.finish().cast_signed(),
            is_touched,
            is_written,
        })
    }
}
