//! The journal, replayed in memory (jbd2; Documentation/filesystems/ext4/journal.rst).

use super::Ext4Error;
use super::checksum::crc32c;
use super::fields::{Fields, wide};
use super::inode::Inode;
use super::volume::Volume;
use sandtrace_event::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

/// Where the last committed copy of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    /// Its block on disk.
    pub(super) block: u64,
    /// Its first four bytes were the journal's magic and are zero in the log.
    pub(super) escaped: bool,
}

/// What a replay would write.
#[derive(Debug, Default)]
pub(super) struct Replay {
    blocks: BTreeMap<u64, Copied>,
    /// Number of the transaction after the last committed one.
    pub(super) next_sequence: u32,
    /// What was left out, in words.
    pub(super) left_out: Option<String>,
}

impl Replay {
    pub(super) fn covers(&self, blocks: Range<u64>) -> bool {
        self.blocks.range(blocks).next().is_some()
    }

    /// Every block that a replay would write.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.blocks.keys().copied()
    }

    pub(super) fn copy_of(&self, block: u64) -> Option<Copied> {
        self.blocks.get(&block).copied()
    }
}

const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
const HEADER: usize = 12;
/// Four times the largest journal that mke2fs makes.
const MAX_BLOCKS: u32 = 1 << 20;

/// Revocations that are kept: more than a thousand blocks of them.
const MAX_REVOKED: usize = 1 << 20;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;

const WIDE: u32 = 0x2;
const CHECKSUM_V2: u32 = 0x8;
const CHECKSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// Revocation, 64 bit, asynchronous commit, both checksums, fast commits.
const KNOWN: u32 = 0x1 | WIDE | 0x4 | CHECKSUM_V2 | CHECKSUM_V3 | FAST_COMMIT;
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
/// Bytes of them that are looked at: four times what mke2fs makes of 4 KiB blocks.
const MOST_FAST_BYTES: u64 = 64 << 20;

const ESCAPED: u32 = 0x1;
const SAME_UUID: u32 = 0x2;
const LAST_TAG: u32 = 0x8;

/// Restores a block's first bytes; `skip`: where in the block `part` begins.
pub(super) fn unescape(part: &mut [u8], skip: u64) {
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    for (to, from) in part.iter_mut().zip(MAGIC.iter().skip(skip)) {
        *to = *from;
    }
}

/// Reads the log from its start to the last complete transaction.
pub(super) fn replay(volume: &Volume<'_>, journal: &Inode) -> Result<Replay, Ext4Error> {
    let Some(mut log) = Log::open(volume, journal)? else {
        return Ok(Replay::default());
    };
    let mut replay = Replay::default();
    let mut revoked = BTreeMap::new();
    let mut logged = Vec::new();
    while let Some(transaction) = log.transaction()? {
        for block in transaction.revoked {
            revoked.insert(block, transaction.sequence);
        }
        if revoked.len() > MAX_REVOKED {
            return Err(TOO_MANY_REVOKED);
        }
        for (block, copied) in transaction.blocks {
            logged.push((transaction.sequence, block, copied));
        }
    }
    for (sequence, block, copied) in logged {
        // A revocation holds for its own and all earlier transactions.
        let is_revoked = revoked
            .get(&block)
            .is_some_and(|last: &u32| last.wrapping_sub(sequence) < 1 << 31);
        if !is_revoked {
            replay.blocks.insert(block, copied);
        }
    }
    replay.next_sequence = log.sequence;
    replay.left_out = log.fast_commits()?;
    Ok(replay)
}

const TOO_MANY_REVOKED: Ext4Error =
    Ext4Error::Bound("the journal revokes more blocks than this reader keeps");

#[derive(Default)]
struct Transaction {
    sequence: u32,
    blocks: Vec<(u64, Copied)>,
    revoked: HashSet<u64>,
}

/// A block of the journal, and where on disk it is.
type LogBlock = (Rc<[u8]>, u64);

struct Log<'a> {
    volume: &'a Volume<'a>,
    journal: &'a Inode,
    features: u32,
    checksum_seed: u32,
    /// The ring of blocks that transactions use.
    ring: Range<u32>,
    /// Blocks for fast commits, after the ring.
    fast: Range<u32>,
    next: u32,
    /// Blocks of the ring that were not visited yet.
    left: u32,
    /// Where on disk those are that were: a forged map would have one block
    /// stand for all of them.
    visited: HashSet<u64>,
    sequence: u32,
}

impl<'a> Log<'a> {
    /// `None` if nothing is logged.
    fn open(volume: &'a Volume<'a>, journal: &'a Inode) -> Result<Option<Self>, Ext4Error> {
        const BAD: Ext4Error = Ext4Error::Corrupt("superblock of the journal");
        let mut log = Self {
            volume,
            journal,
            features: 0,
            checksum_seed: 0,
            ring: 0..1,
            fast: 0..0,
            next: 0,
            left: 1,
            visited: HashSet::new(),
            sequence: 0,
        };
        let (bytes, _) = log.block_at(0)?;
        let fields = Fields(&bytes);
        let kind = fields.be32(4)?;
        let is_superblock = kind == SUPERBLOCK_V1 || kind == SUPERBLOCK_V2;
        if !bytes.starts_with(&MAGIC) || !is_superblock {
            return Err(BAD);
        }
        if kind == SUPERBLOCK_V2 {
            log.features = fields.be32(40)?;
        }
        if log.features & !KNOWN != 0 {
            let features = log.features & !KNOWN;
            return Err(Ext4Error::Unsupported(format!("journal {features:#x}")));
        }
        let checksum = crc32c(crc32c(!0, fields.bytes(0, 0xfc)?), &[0; 4]);
        let checksum = crc32c(checksum, fields.bytes(0x100, 1024 - 0x100)?);
        if log.has_checksums() && fields.be32(0xfc)? != checksum {
            return Err(BAD);
        }
        log.checksum_seed = crc32c(!0, fields.bytes(48, 16)?);
        let [size, blocks, first, sequence, start] = [12, 16, 20, 24, 28].map(|at| fields.be32(at));
        let (blocks, first, start) = (blocks?, first?, start?);
        let file_blocks = journal.size / volume.block_size();
        if u64::from(size?) != volume.block_size() || u64::from(blocks) > file_blocks {
            return Err(BAD);
        }
        if blocks > MAX_BLOCKS {
            return Err(Ext4Error::Unsupported(
                "journal of more than 2^20 blocks".to_owned(),
            ));
        }
        let fast = match (log.features & FAST_COMMIT, fields.be32(84)?) {
            (0, _) => 0,
            (_, 0) => DEFAULT_FAST_COMMIT_BLOCKS,
            (_, count) => count,
        };
        let end = blocks.checked_sub(fast).ok_or(BAD)?;
        if first == 0 || first >= end || (start != 0 && !(first..end).contains(&start)) {
            return Err(BAD);
        }
        log.ring = first..end;
        // As the kernel has it, which leaves one block out (`journal_init_common`
        // in fs/jbd2/journal.c: `j_fc_first`).
        log.fast = end + 1..blocks;
        log.left = end - first;
        log.next = start;
        log.sequence = sequence?;
        Ok((start != 0).then_some(log))
    }

    fn has_checksums(&self) -> bool {
        self.features & (CHECKSUM_V2 | CHECKSUM_V3) != 0
    }

    /// A block of the journal, and where on disk it is. It is read as it is:
    /// the log never holds copies of itself.
    fn block_at(&self, logical: u32) -> Result<LogBlock, Ext4Error> {
        let run = self.volume.run_at(self.journal, logical.into())?;
        let at = run
            .start
            .ok_or(Ext4Error::Corrupt("a hole in the journal"))?;
        Ok((self.volume.block(at)?, at))
    }

    /// The next block of the ring; `None` once all were visited.
    fn take(&mut self) -> Result<Option<LogBlock>, Ext4Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        let block = self.block_at(self.next)?;
        if !self.visited.insert(block.1) {
            return Err(Ext4Error::Corrupt("a block that is in the journal twice"));
        }
        self.left = left;
        self.next += 1;
        if self.next >= self.ring.end {
            self.next = self.ring.start;
        }
        Ok(Some(block))
    }

    /// The next complete transaction. Where the log ends, and where a block is
    /// not of the transaction or fails its checksum, the story ends.
    fn transaction(&mut self) -> Result<Option<Transaction>, Ext4Error> {
        let mut transaction = Transaction {
            sequence: self.sequence,
            ..Transaction::default()
        };
        while let Some((bytes, _)) = self.take()? {
            let block = Fields(&bytes);
            if !bytes.starts_with(&MAGIC) || block.be32(8)? != self.sequence {
                return Ok(None);
            }
            let go_on = match block.be32(4)? {
                DESCRIPTOR => self.descriptor(block, &mut transaction)?,
                REVOKE => self.revocations(block, &mut transaction)?,
                COMMIT if self.is_committed(block)? => {
                    self.sequence = self.sequence.wrapping_add(1);
                    return Ok(Some(transaction));
                }
                _ => false,
            };
            if !go_on {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn descriptor(
        &mut self,
        block: Fields<'_>,
        transaction: &mut Transaction,
    ) -> Result<bool, Ext4Error> {
        if !self.has_good_tail(block)? {
            return Ok(false);
        }
        let mut at = HEADER;
        loop {
            let Ok((tag, len)) = self.tag(block, at) else {
                return Ok(false);
            };
            at += len;
            let Some((data, copy)) = self.take()? else {
                return Ok(false);
            };
            if !self.is_intact(&tag, &data) {
                return Ok(false);
            }
            let copied = Copied {
                block: copy,
                escaped: tag.flags & ESCAPED != 0,
            };
            transaction.blocks.push((tag.block, copied));
            if tag.flags & LAST_TAG != 0 {
                return Ok(true);
            }
        }
    }

    /// The tag at `at`, and the room it takes.
    fn tag(&self, block: Fields<'_>, at: usize) -> Result<(Tag, usize), Ext4Error> {
        let fields = block.from(at)?;
        let is_wide = self.features & WIDE != 0;
        let high = |at| if is_wide { fields.be32(at) } else { Ok(0) };
        let (tag, len) = if self.features & CHECKSUM_V3 != 0 {
            let tag = Tag {
                block: wide(high(8)?, fields.be32(0)?),
                flags: fields.be32(4)?,
                checksum: fields.be32(12)?,
            };
            (tag, 16)
        } else {
            let tag = Tag {
                block: wide(high(8)?, fields.be32(0)?),
                flags: fields.be16(6)?.into(),
                checksum: fields.be16(4)?.into(),
            };
            let checksum = if self.features & CHECKSUM_V2 != 0 {
                2
            } else {
                0
            };
            (tag, if is_wide { 12 } else { 8 } + checksum)
        };
        let uuid = if tag.flags & SAME_UUID != 0 { 0 } else { 16 };
        Ok((tag, len + uuid))
    }

    fn is_intact(&self, tag: &Tag, data: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let seed = crc32c(self.checksum_seed, &self.sequence.to_be_bytes());
        let checksum = crc32c(seed, data);
        if self.features & CHECKSUM_V3 != 0 {
            tag.checksum == checksum
        } else {
            tag.checksum == checksum & 0xffff
        }
    }

    fn revocations(
        &self,
        block: Fields<'_>,
        transaction: &mut Transaction,
    ) -> Result<bool, Ext4Error> {
        if !self.has_good_tail(block)? {
            return Ok(false);
        }
        let is_wide = self.features & WIDE != 0;
        let size = if is_wide { 8 } else { 4 };
        let end = usize::try_from(block.be32(HEADER)?).unwrap_or(usize::MAX);
        let mut at = HEADER + 4;
        while at + size <= end.min(block.0.len()) {
            let number = if is_wide {
                block.be64(at)?
            } else {
                block.be32(at)?.into()
            };
            transaction.revoked.insert(number);
            at += size;
        }
        if transaction.revoked.len() > MAX_REVOKED {
            return Err(TOO_MANY_REVOKED);
        }
        Ok(true)
    }

    /// Descriptors and revocations end with a checksum of themselves.
    fn has_good_tail(&self, block: Fields<'_>) -> Result<bool, Ext4Error> {
        if !self.has_checksums() {
            return Ok(true);
        }
        let at = block.0.len().saturating_sub(4);
        let checksum = crc32c(self.checksum_seed, block.bytes(0, at)?);
        Ok(block.be32(at)? == crc32c(checksum, &[0; 4]))
    }

    fn is_committed(&self, block: Fields<'_>) -> Result<bool, Ext4Error> {
        if !self.has_checksums() {
            return Ok(true);
        }
        let checksum = crc32c(self.checksum_seed, block.bytes(0, HEADER + 4)?);
        let checksum = crc32c(checksum, &[0; 4]);
        let checksum = crc32c(checksum, block.from(HEADER + 8)?.0);
        Ok(block.be32(HEADER + 4)? == checksum)
    }

    /// Fast commits are not replayed; says so if there are any since the last
    /// full one: their area then begins with a head tag (fs/ext4/fast_commit.h)
    /// that names the transaction they belong to. What is said differs after
    /// each further one.
    fn fast_commits(&self) -> Result<Option<String>, Ext4Error> {
        const HEAD: u16 = 0x9;
        if self.fast.is_empty() {
            return Ok(None);
        }
        let (bytes, _) = self.block_at(self.fast.start)?;
        let head = Fields(&bytes);
        if head.le16(0)? != HEAD || head.le32(8)? != self.sequence {
            return Ok(None);
        }
        let most = usize::try_from(MOST_FAST_BYTES / self.volume.block_size());
        let most = most.unwrap_or(usize::MAX);
        let mut hash = Sha256::new();
        for block in self.fast.clone().take(most) {
            hash.update(&*self.block_at(block)?.0);
        }
        let digest = Digest(hash.finalize().into());
        let feature = Ext4Error::Unsupported("fast_commit".to_owned());
        let which = match self.fast.len() > most {
            true => format!("the first {most} of {} blocks for it", self.fast.len()),
            false => "its blocks".to_owned(),
        };
        Ok(Some(format!(
            "{feature}: what was committed since the last full commit; {which} have the SHA-256 \
             {digest}"
        )))
    }
}

struct Tag {
    block: u64,
    flags: u32,
    checksum: u32,
}
