//! Directories, links' targets and files' bytes.

use super::Ext4Error;
use super::checksum::crc32c;
use super::fields::Fields;
use super::inode::{Inode, InodeKind};
use super::volume::Volume;

/// Longest target of a symbolic link.
const MAX_TARGET: u64 = 4096;
/// Size of a directory block's checksum, which poses as an entry of type 0xde.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct DirEntry {
    pub(in super::super) inode: u32,
    pub(in super::super) name: Box<[u8]>,
}

impl DirEntry {
    /// With a name that is one, whatever its bytes.
    fn spelled_out(self) -> Self {
        let digits = self.name.iter().map(|byte| format!("{byte:02x}"));
        let name = digits.collect::<String>().into_bytes().into();
        Self { name, ..self }
    }
}

/// What a walk over a directory's blocks calls for every one of them.
pub(in super::super) enum Step {
    Entry(DirEntry),
    /// An entry that the guest's kernel would refuse as well.
    Refused(Ext4Error),
    /// A part of the directory that could not be read: any name may be in it.
    Unread(Ext4Error),
}

impl Volume<'_> {
    /// Calls `each` with every name save `.` and `..`, until it returns false.
    /// `blocks`: how many blocks may still be read, which are counted down.
    ///
    /// Hashed directories read like plain ones: their index blocks pose as
    /// unused entries. Names that are not in the clear are given in hexadecimal
    /// digits.
    pub(in super::super) fn list(
        &self,
        dir: &Inode,
        blocks: &mut u64,
        each: &mut dyn FnMut(Step) -> bool,
    ) -> Result<(), Ext4Error> {
        if dir.kind != InodeKind::Dir {
            return Err(Ext4Error::Corrupt("not a directory"));
        }
        if dir.is_inline() {
            charge(blocks)?;
            return self.list_inline(dir, each);
        }
        let count = dir.size.div_ceil(self.block_size());
        let mut logical = 0;
        while logical < count {
            let run = self.run_at(dir, logical)?;
            let Some(start) = run.start else {
                // A map of holes is as long as any other.
                charge(blocks)?;
                if !each(Step::Unread(Ext4Error::Corrupt("a hole in a directory"))) {
                    return Ok(());
                }
                logical += run.len;
                continue;
            };
            for offset in 0..run.len.min(count - logical) {
                charge(blocks)?;
                let block = self.block(start.saturating_add(offset));
                let checked = block.and_then(|block| self.check(dir, &block).map(|()| block));
                let go_on = match checked {
                    Ok(block) => self.list_block(dir, &block, each),
                    Err(error) => each(Step::Unread(error)),
                };
                if !go_on {
                    return Ok(());
                }
            }
            logical += run.len;
        }
        Ok(())
    }

    /// An index block has its checksum elsewhere; only leaves are checked.
    fn check(&self, dir: &Inode, block: &[u8]) -> Result<(), Ext4Error> {
        if !self.superblock.checksums {
            return Ok(());
        }
        let Some((at, sum)) = leaf_checksum(Fields(block))? else {
            return Ok(());
        };
        if sum != crc32c(dir.checksum_seed, Fields(block).bytes(0, at)?) {
            return Err(Ext4Error::Corrupt("checksum of a directory block"));
        }
        Ok(())
    }

    /// False once `each` was.
    pub(super) fn list_block(
        &self,
        dir: &Inode,
        block: &[u8],
        each: &mut dyn FnMut(Step) -> bool,
    ) -> bool {
        let mut rest = Fields(block);
        while !rest.0.is_empty() {
            let (entry, len) = match parse_entry(rest) {
                Ok(parsed) => parsed,
                Err(error) => return each(Step::Unread(error)),
            };
            let go_on = match entry {
                Some(entry) if entry.inode == 0 || is_dot(&entry.name) => true,
                Some(entry) if dir.is_encrypted() => each(Step::Entry(entry.spelled_out())),
                Some(entry) if !is_name(&entry.name) => each(Step::Refused(Ext4Error::Corrupt(
                    "a directory entry whose name is no name",
                ))),
                Some(entry) => each(Step::Entry(entry)),
                None => true,
            };
            if !go_on {
                return false;
            }
            rest = rest.from(len).unwrap_or(Fields(&[]));
        }
        true
    }

    /// Where a symbolic link points.
    pub(in super::super) fn target(&self, link: &Inode) -> Result<Vec<u8>, Ext4Error> {
        link.check_readable()?;
        if let Some(target) = link.short_target() {
            return Ok(target.to_vec());
        }
        if link.size > MAX_TARGET {
            return Err(Ext4Error::Corrupt("target of a link"));
        }
        let mut target = vec![0; usize::try_from(link.size).unwrap_or_default()];
        let mut done = 0;
        while let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_at(link, done as u64, rest)? {
                0 => return Err(Ext4Error::Corrupt("target of a link")),
                read => done += read,
            }
        }
        Ok(target)
    }

    /// Reads from a file up to the end of a run; 0 at the end of the file.
    pub(in super::super) fn read_at(
        &self,
        file: &Inode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Ext4Error> {
        file.check_readable()?;
        let left = file.size.saturating_sub(offset);
        let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.read_stored(file, offset, buffer.get_mut(..len).unwrap_or_default())
    }

    /// Reads what is on the disk up to the end of a run, whether or not it is in
    /// the clear, and beyond the end of the file.
    pub(in super::super) fn read_stored(
        &self,
        file: &Inode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Ext4Error> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if file.is_inline() {
            return self.read_inline(file, offset, buffer);
        }
        let size = self.block_size();
        let run = self.run_at(file, offset / size)?;
        let skip = offset % size;
        let most = run.len.saturating_mul(size).saturating_sub(skip);
        let len = usize::try_from(most).map_or(buffer.len(), |most| most.min(buffer.len()));
        let part = buffer.get_mut(..len).unwrap_or_default();
        match run.start {
            Some(start) => self.read_run(start, skip, part)?,
            None => part.fill(0),
        }
        Ok(len)
    }
}

/// Counts a block that is looked at.
fn charge(blocks: &mut u64) -> Result<(), Ext4Error> {
    *blocks = blocks
        .checked_sub(1)
        .ok_or(Ext4Error::Corrupt("directories larger than the disk"))?;
    Ok(())
}

/// Where the checksum of a leaf stands, and what it says. An index block may
/// hold the old one of the leaf that it was before, behind its last entry, so
/// that one counts which the entries lead to (`__get_dirent_tail` in e2fsprogs'
/// lib/ext2fs/csum.c).
fn leaf_checksum(block: Fields<'_>) -> Result<Option<(usize, u32)>, Ext4Error> {
    let at = block.0.len().saturating_sub(TAIL);
    let mut reached = 0;
    while reached < at {
        match usize::from(block.le16(reached + 4)?) {
            len if len < 8 || len == 0xffff => return Ok(None),
            len => reached += len,
        }
    }
    let tail = block.from(at)?;
    let is_tail = reached == at
        && tail.le32(0)? == 0
        && usize::from(tail.le16(4)?) == TAIL
        && (tail.byte(6)?, tail.byte(7)?) == (0, TAIL_TYPE);
    Ok(is_tail.then_some((at, tail.le32(8)?)))
}

/// The entry at the start of `rest`, if it is one, and the room it takes.
fn parse_entry(rest: Fields<'_>) -> Result<(Option<DirEntry>, usize), Ext4Error> {
    const BAD: Ext4Error = Ext4Error::Corrupt("a directory entry that does not fit");
    let len = match usize::from(rest.le16(4)?) {
        // A block of 64 KiB that is one entry.
        0 | 0xffff => rest.0.len(),
        len => len,
    };
    let name_len = usize::from(rest.byte(6)?);
    if len < 8 || !len.is_multiple_of(4) || len > rest.0.len() {
        return Err(BAD);
    }
    let inode = rest.le32(0)?;
    if inode == 0 {
        return Ok((None, len));
    }
    if name_len + 8 > len {
        return Err(BAD);
    }
    let name = rest.bytes(8, name_len)?.into();
    Ok((Some(DirEntry { inode, name }), len))
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'/') && !name.contains(&0)
}
