//! The file systems of one disk: the disk as a whole, and its partitions.

use super::super::disk::{Blocks, Partition, Window, partitions};
use std::sync::Arc;

/// Where a file system is on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartId {
    /// Of the partition; 0: the whole disk.
    pub(crate) number: u32,
    /// First byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// A part of a disk that may hold a file system.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) id: PartId,
    pub(crate) disk: Arc<dyn Blocks>,
    /// Others of the same bytes are read already.
    pub(crate) is_crowded: bool,
}

/// Both the whole disk and its partitions where both can be: the guest knows
/// which of them it uses, and could forge the other to hide it.
pub(crate) fn parts(disk: &Arc<dyn Blocks>) -> Vec<Part> {
    let table = partitions(&**disk).unwrap_or_default();
    let mut parts = Vec::new();
    if table.is_empty() || has_superblock(&**disk) {
        let id = PartId {
            number: 0,
            start: 0,
            len: u64::MAX,
        };
        parts.push(Part {
            id,
            disk: Arc::clone(disk),
            is_crowded: false,
        });
    }
    parts.extend(table.into_iter().map(|partition| {
        let Partition {
            number,
            start,
            len,
            is_crowded,
        } = partition;
        let window = Window::new(Arc::clone(disk), start, len);
        Part {
            id: PartId { number, start, len },
            disk: Arc::new(window),
            is_crowded,
        }
    }));
    parts
}

/// Whether the magic number of ext4 is where a file system has it.
fn has_superblock(disk: &dyn Blocks) -> bool {
    let mut magic = [0; 2];
    disk.read_exact_at(&mut magic, 1024 + 0x38).is_ok() && magic == [0x53, 0xef]
}
