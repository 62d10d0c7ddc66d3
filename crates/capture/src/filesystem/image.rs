//! Disk images and block devices: what is on them, and what was written
//! since the scan before.

mod moment;
mod parts;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use moment::{Image, Moment};
pub(crate) use parts::{Part, PartId, parts};
pub(crate) use walk::{Old, ReadPart, read_inode, walk};
