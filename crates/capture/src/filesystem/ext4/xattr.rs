//! Extended attributes, in an inode and in a block of their own
//! (Documentation/filesystems/ext4/attributes.rst).

use super::super::tree::Xattr;
use super::Ext4Error;
use super::fields::Fields;
use super::inode::Inode;
use super::volume::Volume;
use std::collections::HashMap;
use std::rc::Rc;

const MAGIC: u32 = 0xea02_0000;
/// As Linux bounds a value and a list of names.
const MAX_VALUE: usize = 64 << 10;
const MAX_COUNT: usize = 4096;
const HEADER_IN_BLOCK: usize = 32;
/// Of an entry without its name.
const ENTRY: usize = 16;
const BAD: Ext4Error = Ext4Error::Corrupt("extended attributes");

const SYSTEM: u8 = 7;
/// What a name's number stands for.
const PREFIXES: [(u8, &str); 8] = [
    (0, ""),
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
    (SYSTEM, "system."),
    (8, "system.richacl"),
];

/// What handling an attribute counts for, in bytes, beside its value.
const HANDLING: u64 = 64;
const BOUND: Ext4Error = Ext4Error::Bound("more extended attributes than one scan reads");
/// Attributes, and values, that are kept for the files that share them.
const MOST_SHARED: usize = 1 << 16;

/// Attributes that a scan has read and many files may share, so that each is
/// read once.
#[derive(Debug, Default)]
pub(in super::super) struct Shared {
    /// Those in blocks of their own, by block.
    blocks: HashMap<u64, Rc<[Xattr]>>,
    /// How many these are.
    count: usize,
    /// Halves of SHA-256 of values in inodes of their own, by inode and length.
    values: HashMap<(u32, usize), [u8; 16]>,
}

impl Volume<'_> {
    /// All of a file's attributes. `left`: bytes of attributes that may still
    /// be handled, which are counted down.
    pub(in super::super) fn xattrs(
        &self,
        inode: &Inode,
        shared: &mut Shared,
        left: &mut u64,
    ) -> Result<Vec<Xattr>, Ext4Error> {
        let mut found = Vec::new();
        let (block, at) = self.inode_place(inode.number)?;
        let size = usize::from(self.superblock.inode_size);
        if inode.extra_end < size {
            let bytes = self.block(block)?;
            let body = Fields(&bytes).bytes(at, size)?;
            let body = Fields(body).from(inode.extra_end)?;
            if body.0.len() > 8 && body.le32(0)? == MAGIC {
                let values = body.from(4)?;
                let mut list = List { shared, left };
                self.list_xattrs(values, values, &mut list, &mut found)?;
            }
        }
        if inode.xattr_block != 0 {
            let list = self.xattrs_of_block(inode.xattr_block, shared, left)?;
            spend(left, HANDLING.saturating_mul(list.len() as u64))?;
            found.extend(list.iter().cloned());
        }
        Ok(found)
    }

    fn xattrs_of_block(
        &self,
        number: u64,
        shared: &mut Shared,
        left: &mut u64,
    ) -> Result<Rc<[Xattr]>, Ext4Error> {
        if let Some(list) = shared.blocks.get(&number) {
            return Ok(Rc::clone(list));
        }
        spend(left, self.block_size())?;
        let bytes = self.block(number)?;
        let block = Fields(&bytes);
        if block.le32(0)? != MAGIC {
            return Err(BAD);
        }
        let mut found = Vec::new();
        let mut list = List { shared, left };
        self.list_xattrs(block.from(HEADER_IN_BLOCK)?, block, &mut list, &mut found)?;
        let found: Rc<[Xattr]> = found.into();
        // An empty list counts as well.
        if shared.count + found.len() >= MOST_SHARED {
            shared.blocks.clear();
            shared.count = 0;
        }
        shared.count += found.len() + 1;
        shared.blocks.insert(number, Rc::clone(&found));
        Ok(found)
    }

    /// `values`: what offsets of values count from.
    fn list_xattrs(
        &self,
        mut entries: Fields<'_>,
        values: Fields<'_>,
        list: &mut List<'_>,
        found: &mut Vec<Xattr>,
    ) -> Result<(), Ext4Error> {
        while entries.0.len() >= 4 && entries.le32(0)? != 0 {
            if found.len() >= MAX_COUNT {
                return Err(BAD);
            }
            let name_len = usize::from(entries.byte(0)?);
            let prefix = entries.byte(1)?;
            let at = usize::from(entries.le16(2)?);
            let holder = entries.le32(4)?;
            let len = usize::try_from(entries.le32(8)?).map_err(|_| BAD)?;
            let name = entries.bytes(ENTRY, name_len)?;
            if len > MAX_VALUE {
                return Err(BAD);
            }
            let known = PREFIXES.iter().find(|(number, _)| *number == prefix);
            let prefix = known.map_or_else(|| format!("{prefix}."), |(_, text)| (*text).to_owned());
            let name = [prefix.as_bytes(), name].concat();
            let xattr = match holder {
                0 => {
                    spend(list.left, HANDLING.saturating_add(len as u64))?;
                    Xattr::new(&name, values.bytes(at, len)?)
                }
                inode => Xattr {
                    name: name.into(),
                    sum: self.sum_in_inode(inode, len, list)?,
                },
            };
            // Content of small files, not an attribute.
            if *xattr.name != *b"system.data" {
                found.push(xattr);
            }
            entries = entries.from((ENTRY + name_len).next_multiple_of(4))?;
        }
        Ok(())
    }

    fn sum_in_inode(
        &self,
        number: u32,
        len: usize,
        list: &mut List<'_>,
    ) -> Result<[u8; 16], Ext4Error> {
        let place = (number, len);
        if let Some(sum) = list.shared.values.get(&place) {
            spend(list.left, HANDLING)?;
            return Ok(*sum);
        }
        spend(list.left, self.block_size().saturating_add(len as u64))?;
        let value = self.value_in_inode(number, len)?;
        let Xattr { sum, .. } = Xattr::new(b"", &value);
        if list.shared.values.len() >= MOST_SHARED {
            list.shared.values.clear();
        }
        list.shared.values.insert(place, sum);
        Ok(sum)
    }

    fn value_in_inode(&self, number: u32, len: usize) -> Result<Vec<u8>, Ext4Error> {
        let holder = self.inode(number)?;
        if holder.size < len as u64 {
            return Err(BAD);
        }
        let mut value = vec![0; len];
        let mut done = 0;
        while let Some(rest) = value.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_at(&holder, done as u64, rest)? {
                0 => return Err(BAD),
                read => done += read,
            }
        }
        Ok(value)
    }
}

/// Content of a small file, which is kept as an attribute: the part of it that
/// is in `area`, a file's attributes in its inode.
pub(super) fn inline_value(area: Fields<'_>) -> Result<&[u8], Ext4Error> {
    if area.0.len() <= 8 || area.le32(0)? != MAGIC {
        return Ok(&[]);
    }
    let values = area.from(4)?;
    let mut entries = values;
    while entries.0.len() >= 4 && entries.le32(0)? != 0 {
        let name_len = usize::from(entries.byte(0)?);
        let name = (entries.byte(1)?, entries.bytes(ENTRY, name_len)?);
        if name == (SYSTEM, b"data") {
            let len = usize::try_from(entries.le32(8)?).map_err(|_| BAD)?;
            return match entries.le32(4)? {
                0 => values.bytes(entries.le16(2)?.into(), len),
                _ => Err(BAD),
            };
        }
        entries = entries.from((ENTRY + name_len).next_multiple_of(4))?;
    }
    Ok(&[])
}

/// What listing attributes needs.
struct List<'a> {
    shared: &'a mut Shared,
    left: &'a mut u64,
}

fn spend(left: &mut u64, bytes: u64) -> Result<(), Ext4Error> {
    *left = left.checked_sub(bytes).ok_or(BOUND)?;
    Ok(())
}
