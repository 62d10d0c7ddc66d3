//! Where a file's blocks are, by extent tree or by block map.

use super::Ext4Error;
use super::checksum::crc32c;
use super::fields::{Fields, wide};
use super::inode::Inode;
use super::volume::Volume;

/// Consecutive blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block on disk; `None` for a hole, or for blocks that were
    /// allocated and never written, which reads as zeros.
    pub(super) start: Option<u64>,
    /// At least 1.
    pub(super) len: u64,
}

const EXTENT_MAGIC: u16 = 0xf30a;
const MAX_DEPTH: u16 = 5;
/// Size of an extent, an index and a header.
const ENTRY: usize = 12;
/// A longer extent is allocated but not written.
const MAX_WRITTEN: u16 = 32768;
/// A file has at most 2^32 blocks.
const LAST: u64 = u32::MAX as u64;

impl Volume<'_> {
    /// The run that holds block `logical` of a file.
    pub(super) fn run_at(&self, inode: &Inode, logical: u64) -> Result<Run, Ext4Error> {
        if inode.is_inline() {
            return Err(Ext4Error::Corrupt("blocks of a file that has none"));
        }
        let logical = u32::try_from(logical).map_err(|_| Ext4Error::Corrupt("file size"))?;
        if inode.has_extents() {
            self.extent_at(inode, logical)
        } else {
            self.mapped_at(inode, logical)
        }
    }

    fn extent_at(&self, inode: &Inode, logical: u32) -> Result<Run, Ext4Error> {
        let mut node: std::rc::Rc<[u8]> = inode.map.to_vec().into();
        let mut depth = None;
        // What lies beyond the subtree that was entered.
        let mut end = LAST + 1;
        loop {
            let fields = Fields(&node);
            let here = header(fields, depth)?;
            if depth.is_some() && self.superblock.checksums {
                check(fields, inode.checksum_seed)?;
            }
            let count = usize::from(fields.le16(2)?);
            check_order(fields, count, here)?;
            let entry = last_not_after(fields, count, logical)?;
            if let Some(next) = entry.next {
                end = end.min(u64::from(next));
            }
            let hole = Run {
                start: None,
                len: end.saturating_sub(logical.into()).max(1),
            };
            let Some(fields) = entry.fields else {
                return Ok(hole);
            };
            if here == 0 {
                return Ok(extent_run(fields, logical, end)?.unwrap_or(hole));
            }
            let child = wide(fields.le16(8)?.into(), fields.le32(4)?);
            node = self.block(child)?;
            depth = Some(here - 1);
        }
    }

    /// The classic map: 12 blocks, then one, two and three levels of blocks of
    /// block numbers.
    fn mapped_at(&self, inode: &Inode, logical: u32) -> Result<Run, Ext4Error> {
        let per_block = self.block_size() / 4;
        let mut index = u64::from(logical);
        if index < 12 {
            return run_in(Fields(&inode.map), index, 12);
        }
        index -= 12;
        let mut span = per_block;
        for level in 0..3 {
            if index < span {
                let root = Fields(&inode.map).le32(48 + 4 * level)?;
                return self.indirect(root, index, span);
            }
            index -= span;
            span *= per_block;
        }
        Err(Ext4Error::Corrupt("file size"))
    }

    fn indirect(&self, root: u32, mut index: u64, mut span: u64) -> Result<Run, Ext4Error> {
        let per_block = self.block_size() / 4;
        let mut block = root;
        loop {
            if block == 0 {
                return Ok(Run {
                    start: None,
                    len: span - index,
                });
            }
            let bytes = self.block(block.into())?;
            span /= per_block;
            if span == 1 {
                return run_in(Fields(&bytes), index, per_block);
            }
            block = Fields(&bytes).le32(position(index / span)?)?;
            index %= span;
        }
    }
}

fn position(index: u64) -> Result<usize, Ext4Error> {
    usize::try_from(index * 4).map_err(|_| Ext4Error::Corrupt("block map"))
}

/// Consecutive numbers (or holes) in a block of block numbers, from `index`.
fn run_in(numbers: Fields<'_>, index: u64, count: u64) -> Result<Run, Ext4Error> {
    let first = numbers.le32(position(index)?)?;
    let mut len = 1;
    while index + len < count {
        let next = u64::from(numbers.le32(position(index + len)?)?);
        let expected = if first == 0 {
            0
        } else {
            u64::from(first) + len
        };
        if next != expected {
            break;
        }
        len += 1;
    }
    Ok(Run {
        start: (first != 0).then_some(first.into()),
        len,
    })
}

/// Checks a node's header and returns its depth, 0 for a leaf.
fn header(node: Fields<'_>, expected: Option<u16>) -> Result<u16, Ext4Error> {
    let [magic, count, most, depth] = [node.le16(0)?, node.le16(2)?, node.le16(4)?, node.le16(6)?];
    let fits = usize::from(most) * ENTRY + ENTRY <= node.0.len();
    let sound = magic == EXTENT_MAGIC && count <= most && fits && depth <= MAX_DEPTH;
    if sound && expected.is_none_or(|expected| expected == depth) {
        Ok(depth)
    } else {
        Err(Ext4Error::Corrupt("extent tree"))
    }
}

fn check(node: Fields<'_>, seed: u32) -> Result<(), Ext4Error> {
    let tail = ENTRY * (usize::from(node.le16(4)?) + 1);
    if node.le32(tail)? == crc32c(seed, node.bytes(0, tail)?) {
        Ok(())
    } else {
        Err(Ext4Error::Corrupt("checksum of the extent tree"))
    }
}

struct Entry<'a> {
    /// The entry that begins at or before the block, if any does.
    fields: Option<Fields<'a>>,
    /// First block of the entry after it.
    next: Option<u32>,
}

/// Entries must be sorted by first block, and extents must not overlap, as the
/// guest's kernel demands.
fn check_order(node: Fields<'_>, count: usize, depth: u16) -> Result<(), Ext4Error> {
    let mut free = 0;
    for index in 0..count {
        let entry = node.from(ENTRY * (index + 1))?;
        let first = u64::from(entry.le32(0)?);
        let len = if depth == 0 { extent_len(entry)?.0 } else { 1 };
        if first < free || len == 0 {
            return Err(Ext4Error::Corrupt("extent tree"));
        }
        free = first + len;
    }
    Ok(())
}

/// Blocks of an extent, and whether they were written.
fn extent_len(extent: Fields<'_>) -> Result<(u64, bool), Ext4Error> {
    let stored = extent.le16(4)?;
    Ok(match stored.checked_sub(MAX_WRITTEN) {
        None | Some(0) => (stored.into(), true),
        Some(unwritten) => (unwritten.into(), false),
    })
}

fn last_not_after(node: Fields<'_>, count: usize, logical: u32) -> Result<Entry<'_>, Ext4Error> {
    let entry = |index: usize| node.from(ENTRY * (index + 1));
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle)?.le32(0)? <= logical {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(Entry {
        fields: low.checked_sub(1).map(entry).transpose()?,
        next: match low < count {
            true => Some(entry(low)?.le32(0)?),
            false => None,
        },
    })
}

/// The rest of an extent from `logical` on; `None` if it ends before.
fn extent_run(extent: Fields<'_>, logical: u32, end: u64) -> Result<Option<Run>, Ext4Error> {
    let stored = extent.le16(4)?;
    let is_written = stored <= MAX_WRITTEN;
    let len = u64::from(if is_written {
        stored
    } else {
        stored - MAX_WRITTEN
    });
    let skip = u64::from(logical).saturating_sub(extent.le32(0)?.into());
    if skip >= len {
        return Ok(None);
    }
    let start = wide(extent.le16(6)?.into(), extent.le32(8)?);
    let start = start.checked_add(skip);
    Ok(Some(Run {
        start: start.filter(|_| is_written),
        len: (len - skip).min(end.saturating_sub(logical.into())).max(1),
    }))
}
