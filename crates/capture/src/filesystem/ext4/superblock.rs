//! The superblock: geometry and features.

use super::Ext4Error;
use super::checksum::crc32c;
use super::fields::{Fields, wide};

/// Where it is, and how long it is, in bytes.
pub(super) const OFFSET: u64 = 1024;
pub(super) const SIZE: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) first_data_block: u32,
    pub(super) blocks_per_group: u32,
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    /// Size of a group descriptor.
    pub(super) descriptor_size: u16,
    /// Inode of a journal that must be replayed.
    pub(super) journal: Option<u32>,
    /// Whether structures carry CRC-32C.
    pub(super) checksums: bool,
    pub(super) checksum_seed: u32,
    /// From which group of blocks of descriptors on each has its own place.
    first_meta_group: Option<u32>,
    /// Groups that hold a copy of the superblock.
    copies: Copies,
}

/// Which groups begin with a copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    All,
    /// Groups 0 and 1 and powers of 3, 5 and 7.
    Sparse,
    /// Group 0 and these.
    Two([u32; 2]),
}

const MAGIC: u16 = 0xef53;
const MAX_LOG_BLOCK_SIZE: u32 = 6;
const HAS_JOURNAL: u32 = 0x4;
const RECOVER: u32 = 0x4;
const WIDE: u32 = 0x80;
const META_GROUPS: u32 = 0x10;
const CHECKSUM_SEED: u32 = 0x2000;
const SPARSE_COPIES: u32 = 0x1;
const TWO_COPIES: u32 = 0x200;
const METADATA_CHECKSUMS: u32 = 0x400;

/// Incompatible features, by name where this reader knows how to read on:
/// entry types, recovery, groups of descriptors, extents, 64 bit, mount protection, flexible groups,
/// large attributes, the checksum seed, large directories, inline data,
/// encryption (such a file is refused by itself), case folding.
const READABLE: u32 = 0x2
    | RECOVER
    | META_GROUPS
    | 0x40
    | WIDE
    | 0x100
    | 0x200
    | 0x400
    | CHECKSUM_SEED
    | 0x4000
    | 0x8000
    | 0x10000
    | 0x20000;
const REFUSED: [(u32, &str); 3] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x1000, "dirdata"),
];

impl Superblock {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Ext4Error> {
        let fields = Fields(bytes);
        if fields.le16(0x38)? != MAGIC {
            return Err(Ext4Error::NotExt4);
        }
        let [compatible, incompatible, read_only] =
            [fields.le32(0x5c)?, fields.le32(0x60)?, fields.le32(0x64)?];
        refuse_unknown(incompatible & !READABLE)?;
        let checksums = read_only & METADATA_CHECKSUMS != 0;
        if checksums && fields.le32(0x3fc)? != crc32c(!0, fields.bytes(0, 0x3fc)?) {
            return Err(Ext4Error::Corrupt("checksum of the superblock"));
        }
        let is_wide = incompatible & WIDE != 0;
        let has_log = compatible & HAS_JOURNAL != 0 && incompatible & RECOVER != 0;
        let log_block_size = fields.le32(0x18)?;
        if log_block_size > MAX_LOG_BLOCK_SIZE {
            return Err(Ext4Error::Corrupt("block size"));
        }
        let old_revision = fields.le32(0x4c)? == 0;
        let superblock = Self {
            block_size: 1024 << log_block_size,
            blocks: wide(
                if is_wide { fields.le32(0x150)? } else { 0 },
                fields.le32(0x4)?,
            ),
            first_data_block: fields.le32(0x14)?,
            blocks_per_group: fields.le32(0x20)?,
            inodes: fields.le32(0)?,
            inodes_per_group: fields.le32(0x28)?,
            inode_size: if old_revision {
                128
            } else {
                fields.le16(0x58)?
            },
            descriptor_size: if is_wide { fields.le16(0xfe)? } else { 32 },
            journal: has_log.then_some(fields.le32(0xe0)?),
            checksums,
            checksum_seed: if incompatible & CHECKSUM_SEED != 0 {
                fields.le32(0x270)?
            } else {
                crc32c(!0, fields.bytes(0x68, 16)?)
            },
            first_meta_group: match incompatible & META_GROUPS {
                0 => None,
                _ => Some(fields.le32(0x104)?),
            },
            copies: if compatible & TWO_COPIES != 0 {
                Copies::Two([fields.le32(0x24c)?, fields.le32(0x250)?])
            } else if read_only & SPARSE_COPIES != 0 {
                Copies::Sparse
            } else {
                Copies::All
            },
        };
        superblock.check()?;
        Ok(superblock)
    }

    fn check(&self) -> Result<(), Ext4Error> {
        let inode_size = u32::from(self.inode_size);
        let sound = [
            (
                inode_size.is_power_of_two() && inode_size >= 128,
                "inode size",
            ),
            (inode_size <= self.block_size, "inode size"),
            (self.inodes_per_group > 0, "inodes per group"),
            (self.blocks_per_group > 0, "blocks per group"),
            (self.descriptor_size >= 32, "size of group descriptors"),
            (
                u64::from(self.first_data_block) < self.blocks,
                "first data block",
            ),
            (
                self.blocks.checked_mul(self.block_size.into()).is_some(),
                "number of blocks",
            ),
            (self.journal != Some(0), "the journal is on another device"),
        ];
        match sound.into_iter().find(|(sound, _)| !sound) {
            Some((_, what)) => Err(Ext4Error::Corrupt(what)),
            None => Ok(()),
        }
    }

    /// Block groups; the last may be cut short.
    pub(super) fn groups(&self) -> u64 {
        (self.blocks - u64::from(self.first_data_block)).div_ceil(u64::from(self.blocks_per_group))
    }
}

impl Superblock {
    /// The block that holds a group's descriptor, and where in it that is.
    pub(super) fn descriptor(&self, group: u64) -> (u64, u64) {
        let size = u64::from(self.descriptor_size);
        let block_size = u64::from(self.block_size);
        let per_block = (block_size / size).max(1);
        let number = group / per_block;
        let at = group % per_block * size;
        let first_meta = self.first_meta_group.map(u64::from);
        if first_meta.is_none_or(|first| number < first) {
            // The descriptors follow the superblock.
            return (OFFSET / block_size + 1 + number, at);
        }
        let holder = number.saturating_mul(per_block);
        let first = u64::from(self.first_data_block);
        let start = holder.saturating_mul(self.blocks_per_group.into());
        let mut skip = u64::from(self.has_copy(holder));
        // The superblock itself is in block 1 of group 0.
        skip += u64::from(block_size == 1024 && number == 0 && first == 0);
        (start.saturating_add(first).saturating_add(skip), at)
    }

    fn has_copy(&self, group: u64) -> bool {
        let is_power = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        match self.copies {
            _ if group == 0 => true,
            Copies::All => true,
            Copies::Two(groups) => groups.into_iter().any(|copy| u64::from(copy) == group),
            Copies::Sparse => group == 1 || [3, 5, 7].into_iter().any(is_power),
        }
    }
}

fn refuse_unknown(features: u32) -> Result<(), Ext4Error> {
    if features == 0 {
        return Ok(());
    }
    let names = (0..32)
        .map(|bit| 1 << bit)
        .filter(|bit| features & bit != 0);
    let names = names.map(|bit| {
        let known = REFUSED.iter().find(|(value, _)| *value == bit);
        known.map_or_else(|| format!("{bit:#x}"), |(_, name)| (*name).to_owned())
    });
    Err(Ext4Error::Unsupported(names.collect::<Vec<_>>().join(", ")))
}
