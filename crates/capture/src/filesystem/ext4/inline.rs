//! Content that is in the inode itself (`inline_data`; Documentation/filesystems/ext4,
//! fs/ext4/inline.c): the first bytes where the map of blocks would be, the
//! rest as the value of the attribute `system.data`.

use super::Ext4Error;
use super::directory::Step;
use super::fields::Fields;
use super::inode::Inode;
use super::volume::Volume;
use super::xattr::inline_value;

/// In a directory the number of its parent comes before the first entry.
const PARENT: usize = 4;

impl Volume<'_> {
    /// Both parts. A file may be longer: it then ends with zeros.
    fn inline_parts(&self, inode: &Inode) -> Result<[Vec<u8>; 2], Ext4Error> {
        let (block, at) = self.inode_place(inode.number)?;
        let bytes = self.block(block)?;
        let size = usize::from(self.superblock.inode_size);
        let body = Fields(Fields(&bytes).bytes(at, size)?);
        let rest = match inode.extra_end < size {
            true => inline_value(body.from(inode.extra_end)?)?,
            false => &[],
        };
        Ok([inode.map.to_vec(), rest.to_vec()])
    }

    /// Reads from a file; beyond what is held there are zeros.
    pub(super) fn read_inline(
        &self,
        file: &Inode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Ext4Error> {
        buffer.fill(0);
        let held = self.inline_parts(file)?.concat();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let held = held.get(from..).unwrap_or_default();
        for (byte, held) in buffer.iter_mut().zip(held) {
            *byte = *held;
        }
        Ok(buffer.len())
    }

    /// Calls `each` with every name of a directory. No entry reaches from one
    /// part into the other.
    pub(super) fn list_inline(
        &self,
        dir: &Inode,
        each: &mut dyn FnMut(Step) -> bool,
    ) -> Result<(), Ext4Error> {
        let [first, rest] = self.inline_parts(dir)?;
        let first = first.get(PARENT..).unwrap_or_default();
        if self.list_block(dir, first, each) {
            self.list_block(dir, &rest, each);
        }
        Ok(())
    }
}
