//! An open file system: blocks as the journal leaves them.

use super::super::disk::Blocks;
use super::Ext4Error;
use super::fields::{Fields, wide};
use super::inode::Inode;
use super::journal::{self, Replay};
use super::superblock::{self, Superblock};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// Blocks of structures that are kept: an inode table's, an extent tree's.
const CACHED: usize = 32;

/// A file system inside an image.
pub(in super::super) struct Volume<'a> {
    image: &'a dyn Blocks,
    pub(super) superblock: Superblock,
    /// Bytes of the image.
    image_size: u64,
    replay: Replay,
    cache: RefCell<VecDeque<(u64, Rc<[u8]>)>>,
}

impl<'a> Volume<'a> {
    /// Reads the superblock and replays the journal in memory.
    pub(in super::super) fn open(image: &'a dyn Blocks) -> Result<Self, Ext4Error> {
        let mut bytes = [0; superblock::SIZE];
        read_exact(image, superblock::OFFSET, &mut bytes)?;
        let mut volume = Self {
            image,
            image_size: image.size(),
            superblock: Superblock::parse(&bytes)?,
            replay: Replay::default(),
            cache: RefCell::default(),
        };
        if let Some(number) = volume.superblock.journal {
            volume.replay = journal::replay(&volume, &volume.inode(number)?)?;
            volume.cache.borrow_mut().clear();
        }
        Ok(volume)
    }

    /// A value that differs once the guest has committed something.
    pub(in super::super) fn generation(&self) -> Result<Generation, Ext4Error> {
        let mut superblock = [0; superblock::SIZE];
        read_exact(self.image, superblock::OFFSET, &mut superblock)?;
        Ok(Generation {
            superblock,
            committed: self.replay.next_sequence,
            left_out: self.replay.left_out.clone(),
        })
    }

    /// What of the journal was not replayed, in words.
    pub(in super::super) fn unreplayed(&self) -> Option<&str> {
        self.replay.left_out.as_deref()
    }

    /// Blocks that the file system or the image has, whichever is less.
    pub(in super::super) fn blocks(&self) -> u64 {
        let in_image = self.image_size / self.block_size();
        self.superblock.blocks.min(in_image)
    }

    pub(in super::super) fn block_size(&self) -> u64 {
        u64::from(self.superblock.block_size)
    }

    pub(in super::super) fn inode(&self, number: u32) -> Result<Inode, Ext4Error> {
        let (block, at) = self.inode_place(number)?;
        let bytes = self.block(block)?;
        let bytes = Fields(&bytes).bytes(at, self.superblock.inode_size.into())?;
        Inode::parse(&self.superblock, number, bytes)
    }

    /// The block that holds an inode, and where in it that is.
    pub(super) fn inode_place(&self, number: u32) -> Result<(u64, usize), Ext4Error> {
        let superblock = &self.superblock;
        if number == 0 || number > superblock.inodes {
            return Err(Ext4Error::Corrupt("inode number"));
        }
        let group = u64::from((number - 1) / superblock.inodes_per_group);
        let index = u64::from((number - 1) % superblock.inodes_per_group);
        let offset = index * u64::from(superblock.inode_size);
        let block = self
            .inode_table(group)?
            .checked_add(offset / self.block_size())
            .ok_or(Ext4Error::Corrupt("inode table"))?;
        let at = usize::try_from(offset % self.block_size()).unwrap_or(usize::MAX);
        Ok((block, at))
    }

    /// First block of a group's inode table.
    fn inode_table(&self, group: u64) -> Result<u64, Ext4Error> {
        if group >= self.superblock.groups() {
            return Err(Ext4Error::Corrupt("inode number"));
        }
        let (block, at) = self.superblock.descriptor(group);
        let bytes = self.block(block)?;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let descriptor = Fields(&bytes).from(at)?;
        let high = if self.superblock.descriptor_size >= 64 {
            descriptor.le32(0x28)?
        } else {
            0
        };
        Ok(wide(high, descriptor.le32(0x8)?))
    }

    /// Blocks of which the journal holds a later copy.
    pub(in super::super) fn journaled(&self) -> BTreeSet<u64> {
        self.replay.blocks().collect()
    }

    /// Whether the journal holds a later copy of any of these.
    pub(super) fn is_journaled(&self, blocks: std::ops::Range<u64>) -> bool {
        self.replay.covers(blocks)
    }

    /// A block as the journal leaves it.
    pub(super) fn block(&self, number: u64) -> Result<Rc<[u8]>, Ext4Error> {
        let mut cache = self.cache.borrow_mut();
        if let Some(at) = cache.iter().position(|(cached, _)| *cached == number)
            && let Some(hit) = cache.remove(at)
        {
            let block = Rc::clone(&hit.1);
            cache.push_front(hit);
            return Ok(block);
        }
        let mut bytes = vec![0; usize::try_from(self.block_size()).unwrap_or_default()];
        self.read_run(number, 0, &mut bytes)?;
        let block: Rc<[u8]> = bytes.into();
        cache.truncate(CACHED - 1);
        cache.push_front((number, Rc::clone(&block)));
        Ok(block)
    }

    /// Reads from consecutive blocks, beginning `skip` bytes into block `first`.
    pub(super) fn read_run(
        &self,
        first: u64,
        skip: u64,
        buffer: &mut [u8],
    ) -> Result<(), Ext4Error> {
        let size = self.block_size();
        let beyond = Ext4Error::Corrupt("a block beyond the file system");
        let blocks = (skip + buffer.len() as u64).div_ceil(size);
        let end = first.checked_add(blocks).ok_or_else(|| beyond.clone())?;
        if first == 0 || end > self.superblock.blocks {
            return Err(beyond);
        }
        if !self.replay.covers(first..end) {
            return read_exact(self.image, first * size + skip, buffer);
        }
        let mut skip = skip;
        let mut rest = buffer;
        for block in first..end {
            let len = usize::try_from(size - skip).map_or(rest.len(), |len| len.min(rest.len()));
            let (part, after) = rest.split_at_mut(len);
            let logged = self.replay.copy_of(block);
            let from = logged.map_or(block, |copy| copy.block);
            read_exact(self.image, from * size + skip, part)?;
            if logged.is_some_and(|copy| copy.escaped) {
                journal::unescape(part, skip);
            }
            (rest, skip) = (after, 0);
        }
        Ok(())
    }
}

/// State of a file system that the guest may be writing to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Generation {
    superblock: [u8; superblock::SIZE],
    committed: u32,
    left_out: Option<String>,
}

fn read_exact(image: &dyn Blocks, offset: u64, buffer: &mut [u8]) -> Result<(), Ext4Error> {
    image
        .read_exact_at(buffer, offset)
        .map_err(|error| Ext4Error::Io {
            offset,
            reason: error.to_string(),
        })
}
