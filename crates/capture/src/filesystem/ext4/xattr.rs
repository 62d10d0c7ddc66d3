//! Extended attributes, in an inode and in a block of their own
//! (Documentation/filesystems/ext4/attributes.rst).

use super::super::tree::Xattr;
use super::Ext4Error;
use super::fields::Fields;
use super::inode::Inode;
use super::volume::Volume;

const MAGIC: u32 = 0xea02_0000;
/// As Linux bounds a value and a list of names.
const MAX_VALUE: usize = 64 << 10;
const MAX_COUNT: usize = 4096;
const HEADER_IN_BLOCK: usize = 32;
const BAD: Ext4Error = Ext4Error::Corrupt("extended attributes");

/// What a name's number stands for.
const PREFIXES: [(u8, &str); 8] = [
    (0, ""),
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
    (7, "system."),
    (8, "system.richacl"),
];

impl Volume<'_> {
    /// All of a file's attributes, in the order of names.
    pub(in super::super) fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, Ext4Error> {
        let mut found = Vec::new();
        let (block, at) = self.inode_place(inode.number)?;
        let size = usize::from(self.superblock.inode_size);
        if inode.extra_end < size {
            let bytes = self.block(block)?;
            let body = Fields(&bytes).bytes(at, size)?;
            let body = Fields(body).from(inode.extra_end)?;
            if body.0.len() > 8 && body.le32(0)? == MAGIC {
                let values = body.from(4)?;
                self.list_xattrs(values, values, &mut found)?;
            }
        }
        if inode.xattr_block != 0 {
            let bytes = self.block(inode.xattr_block)?;
            let block = Fields(&bytes);
            if block.le32(0)? != MAGIC {
                return Err(BAD);
            }
            self.list_xattrs(block.from(HEADER_IN_BLOCK)?, block, &mut found)?;
        }
        found.sort_unstable();
        Ok(found)
    }

    /// `values`: what offsets of values count from.
    fn list_xattrs(
        &self,
        mut entries: Fields<'_>,
        values: Fields<'_>,
        found: &mut Vec<Xattr>,
    ) -> Result<(), Ext4Error> {
        const ENTRY: usize = 16;
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
            let elsewhere;
            let value = match holder {
                0 => values.bytes(at, len)?,
                inode => {
                    elsewhere = self.value_in_inode(inode, len)?;
                    &elsewhere
                }
            };
            let known = PREFIXES.iter().find(|(number, _)| *number == prefix);
            let prefix = known.map_or_else(|| format!("{prefix}."), |(_, text)| (*text).to_owned());
            // Content of small files, not an attribute.
            if !(prefix == "system." && name == b"data") {
                found.push(Xattr::new(&[prefix.as_bytes(), name].concat(), value));
            }
            entries = entries.from((ENTRY + name_len).next_multiple_of(4))?;
        }
        Ok(())
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
