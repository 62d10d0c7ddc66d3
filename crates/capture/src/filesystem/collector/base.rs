//! Content that an index only points at, read from a copy of the disk.

use super::super::bounds::Budget;
use super::super::content::Content;
use super::super::diff::{Base, Traces};
use super::super::ext4::Volume;
use super::super::image::read_inode;
use super::super::layers::Failed;
use super::super::secrets::Findings;
use super::super::tree::Entry;

/// A file system of the disk as it was.
pub(super) struct Copy<'a> {
    pub(super) volume: Option<Volume<'a>>,
    pub(super) budget: &'a mut Budget,
}

impl Base for Copy<'_> {
    fn lookup(&mut self, _path: &[u8]) -> Result<Option<Entry>, Failed> {
        Ok(None)
    }

    fn content(&mut self, of: &Content) -> Content {
        match (of, &self.volume) {
            (Content::InBase(inode), Some(volume)) => read_inode(volume, *inode, self.budget),
            _ => Content::Unreadable("there is no copy of the disk as it was".into()),
        }
    }

    fn traces(&self) -> Traces {
        Traces::Inodes
    }

    fn secrets(&self) -> Option<&Findings> {
        self.budget.secrets.as_ref()
    }
}
