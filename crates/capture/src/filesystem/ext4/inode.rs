//! Inodes.

use super::Ext4Error;
use super::checksum::crc32c;
use super::fields::{Fields, wide};
use super::superblock::Superblock;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum InodeKind {
    File,
    Dir,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Inode {
    pub(in super::super) number: u32,
    pub(in super::super) kind: InodeKind,
    /// Permission bits.
    pub(in super::super) mode: u32,
    pub(in super::super) uid: u32,
    pub(in super::super) gid: u32,
    /// Bytes.
    pub(in super::super) size: u64,
    pub(in super::super) links: u16,
    /// Tells it from another inode that had the number before.
    pub(in super::super) generation: u32,
    /// Nanoseconds since the epoch.
    pub(in super::super) modified: i64,
    /// Where attributes may begin in the inode, in bytes; beyond its end if
    /// there is no room for any.
    pub(super) extra_end: usize,
    /// Block of attributes; 0: none.
    pub(super) xattr_block: u64,
    flags: u32,
    /// The root of its block map, or a short link's target, or a device's number.
    pub(super) map: [u8; MAP],
    /// Seed of the checksums of its blocks.
    pub(super) checksum_seed: u32,
}

const MAP: usize = 60;
const ENCRYPTED: u32 = 0x800;
const EXTENTS: u32 = 0x8_0000;
const INLINE_DATA: u32 = 0x1000_0000;
/// Where the two halves of the checksum are.
const CHECKSUM_LOW: usize = 0x7c;
const CHECKSUM_HIGH: usize = 0x82;

impl Inode {
    pub(super) fn parse(
        superblock: &Superblock,
        number: u32,
        bytes: &[u8],
    ) -> Result<Self, Ext4Error> {
        let fields = Fields(bytes);
        let generation = fields.le32(0x64)?;
        let seed = crc32c(superblock.checksum_seed, &number.to_le_bytes());
        let checksum_seed = crc32c(seed, &generation.to_le_bytes());
        let extra = if bytes.len() > 128 {
            fields.le16(0x80)?
        } else {
            0
        };
        if superblock.checksums {
            check(fields, checksum_seed, extra)?;
        }
        let mode = fields.le16(0)?;
        let kind = kind(mode).ok_or(Ext4Error::Corrupt("an inode without a type"))?;
        if fields.le16(0x1a)? == 0 {
            return Err(Ext4Error::Corrupt("a deleted inode is in use"));
        }
        let has_size_high = matches!(kind, InodeKind::File | InodeKind::Dir);
        let size_high = if has_size_high { fields.le32(0x6c)? } else { 0 };
        let map = fields.bytes(0x28, MAP)?.try_into();
        Ok(Self {
            number,
            kind,
            mode: u32::from(mode & 0o7777),
            uid: u32::from(fields.le16(0x78)?) << 16 | u32::from(fields.le16(0x2)?),
            gid: u32::from(fields.le16(0x7a)?) << 16 | u32::from(fields.le16(0x18)?),
            size: wide(size_high, fields.le32(0x4)?),
            links: fields.le16(0x1a)?,
            generation,
            modified: time(fields, 0x10, (extra >= 12).then_some(0x88))?,
            extra_end: match bytes.len() {
                128 => 128,
                _ => 128 + usize::from(extra),
            },
            xattr_block: wide(fields.le16(0x76)?.into(), fields.le32(0x68)?),
            flags: fields.le32(0x20)?,
            map: map.map_err(|_| Ext4Error::Corrupt("inode size"))?,
            checksum_seed,
        })
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    /// Its content is in the inode itself, not in blocks.
    pub(super) fn is_inline(&self) -> bool {
        self.flags & INLINE_DATA != 0
    }

    /// Its content is not in the clear; nor are, in a directory, names.
    pub(in super::super) fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    /// Refuses content that is not in the clear.
    pub(super) fn check_readable(&self) -> Result<(), Ext4Error> {
        match self.is_encrypted() {
            false => Ok(()),
            true => Err(Ext4Error::Unsupported("encrypt".to_owned())),
        }
    }

    /// A short link's target is in the inode itself.
    pub(in super::super) fn short_target(&self) -> Option<&[u8]> {
        let size = usize::try_from(self.size).ok()?;
        let is_short = size < MAP && !self.has_extents() && !self.is_inline();
        self.map.get(..size).filter(|_| is_short)
    }

    /// Major and minor number of a device, from the old or the new encoding.
    pub(in super::super) fn device(&self) -> Result<(u32, u32), Ext4Error> {
        let map = Fields(&self.map);
        let (old, new) = (map.le32(0)?, map.le32(4)?);
        Ok(if old != 0 {
            (old >> 8 & 0xff, old & 0xff)
        } else {
            (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00)
        })
    }
}

fn kind(mode: u16) -> Option<InodeKind> {
    Some(match mode >> 12 {
        0x1 => InodeKind::Fifo,
        0x2 => InodeKind::Char,
        0x4 => InodeKind::Dir,
        0x6 => InodeKind::Block,
        0x8 => InodeKind::File,
        0xa => InodeKind::Symlink,
        0xc => InodeKind::Socket,
        _ => return None,
    })
}

/// Compares the stored checksum with that of the inode without it; where
/// there is no room for its high half, only the low one counts.
fn check(fields: Fields<'_>, seed: u32, extra: u16) -> Result<(), Ext4Error> {
    let has_high = extra >= 4;
    let mut crc = crc32c(seed, fields.bytes(0, CHECKSUM_LOW)?);
    crc = crc32c(crc, &[0; 2]);
    let after = CHECKSUM_LOW + 2;
    if has_high {
        crc = crc32c(crc, fields.bytes(after, CHECKSUM_HIGH - after)?);
        crc = crc32c(crc, &[0; 2]);
        crc = crc32c(crc, fields.from(CHECKSUM_HIGH + 2)?.0);
    } else {
        crc = crc32c(crc, fields.from(after)?.0);
        crc &= 0xffff;
    }
    let high = if has_high {
        fields.le16(CHECKSUM_HIGH)?
    } else {
        0
    };
    let stored = u32::from(high) << 16 | u32::from(fields.le16(CHECKSUM_LOW)?);
    if stored == crc {
        Ok(())
    } else {
        Err(Ext4Error::Corrupt("checksum of the inode"))
    }
}

/// Seconds, signed, with two more bits and nanoseconds in the extra field.
fn time(fields: Fields<'_>, at: usize, extra: Option<usize>) -> Result<i64, Ext4Error> {
    let seconds = i64::from(fields.le32(at)?.cast_signed());
    let extra = extra.map_or(Ok(0), |at| fields.le32(at))?;
    let seconds = seconds + (i64::from(extra & 3) << 32);
    Ok(seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(extra >> 2)))
}
