//! A reader of ext2, ext3 and ext4 whose every structure may be forged.
//!
//! Nothing is mounted and nothing is written; the journal is replayed in
//! memory. The layout is that of the Linux kernel's
//! Documentation/filesystems/ext4. Inodes are reached by number, so that a
//! walk visits a directory once however often it is linked, and every lookup
//! of a block makes progress: no loop on disk can hold the reader.

mod blocks;
mod checksum;
mod directory;
mod fields;
mod inline;
mod inode;
mod journal;
mod layout;
mod superblock;
#[cfg(test)]
mod tests;
mod volume;
mod xattr;

pub(super) use directory::{DirEntry, Step};
pub(super) use inode::{Inode, InodeKind};
pub(super) use layout::Touched;
pub(super) use volume::Volume;
pub(super) use xattr::Shared as SharedXattrs;

/// Why something of a file system could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ext4Error {
    /// The image itself.
    #[error("cannot read the image at byte {offset}: {reason}")]
    Io { offset: u64, reason: String },
    /// No ext4 superblock.
    #[error("not an ext2, ext3 or ext4 file system")]
    NotExt4,
    /// Features that this reader does not know.
    #[error("ext4 feature not supported: {0}")]
    Unsupported(String),
    /// What would take more than one scan may spend.
    #[error("{0}")]
    Bound(&'static str),
    /// A structure that contradicts itself.
    #[error("{0}")]
    Corrupt(&'static str),
}
