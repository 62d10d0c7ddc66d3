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
}

const MAGIC: u16 = 0xef53;
const MAX_LOG_BLOCK_SIZE: u32 = 6;
const HAS_JOURNAL: u32 = 0x4;
const RECOVER: u32 = 0x4;
const WIDE: u32 = 0x80;
const CHECKSUM_SEED: u32 = 0x2000;
const METADATA_CHECKSUMS: u32 = 0x400;

/// Incompatible features, by name where this reader knows how to read on:
/// entry types, recovery, extents, 64 bit, mount protection, flexible groups,
/// large attributes, the checksum seed, large directories, inline data (such
/// a file is refused by itself), encryption (as well), case folding.
const READABLE: u32 = 0x2
    | RECOVER
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
const REFUSED: [(u32, &str); 4] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
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
