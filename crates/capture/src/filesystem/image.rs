//! Index of an ext4 image.

use super::bounds::{Budget, Problems};
use super::config::FsError;
use super::content::{self, Content, ReadAt};
use super::ext4::{DirEntry, Ext4Error, Inode, InodeKind, Step, Volume};
use super::tree::{Attributes, Entry, Identity, PathBytes, Tree, join, shown};
use rustix::fs::{Mode, OFlags};
use sandtrace_event::FileKind;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// How often a file system is read again that was both moving and unsound.
const ATTEMPTS: usize = 3;
const ROOT: u32 = 2;
/// Files cannot hold more than the disk: beyond twice that, this many bytes
/// of holes are hashed, so that a small disk cannot cost much time.
const HOLES: u64 = 1 << 30;
/// Blocks of all directories together: as the disk has, and at most these.
const MAX_DIRECTORY_BLOCKS: u64 = 1 << 24;

/// A raw image or a block device.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
}

impl Image {
    pub(crate) fn open(path: &Path) -> Result<Self, FsError> {
        // NONBLOCK: a pipe in its place must not stop us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let failed = |source| FsError::Image {
            path: path.to_owned(),
            source,
        };
        let fd = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(fd.map_err(|errno| failed(errno.into()))?);
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(FsError::NotADisk {
                path: path.to_owned(),
            });
        }
        Ok(Self { file })
    }

    /// Walks the file system; `None` if it cannot be read at all. The flag
    /// says whether the guest committed something meanwhile.
    pub(crate) fn walk(
        &self,
        budget: &mut Budget,
        problems: &mut Problems,
    ) -> (Option<Tree>, bool) {
        let mut attempts = 1;
        loop {
            let (mut spent, mut found) = (budget.clone(), Problems::default());
            let walked = self.walk_once(&mut spent, &mut found);
            let moved = matches!(walked, Ok((_, true)));
            let is_sound = walked.is_ok() && found.unreadable.count == 0;
            if attempts < ATTEMPTS && !is_sound && (moved || walked.is_err()) {
                attempts += 1;
                continue;
            }
            (*budget, *problems) = (spent, found);
            return match walked {
                Ok((tree, moved)) => (Some(tree), moved),
                Err(error) => {
                    problems.unreadable(|| format!("the whole disk: {error}"));
                    (None, false)
                }
            };
        }
    }

    fn walk_once(
        &self,
        budget: &mut Budget,
        problems: &mut Problems,
    ) -> Result<(Tree, bool), Ext4Error> {
        let volume = Volume::open(&self.file)?;
        let before = volume.generation()?;
        let root = volume.inode(ROOT)?;
        if let Some(left_out) = volume.unreplayed() {
            problems.unreadable(|| left_out.to_owned());
        }
        let size = volume.blocks().saturating_mul(volume.block_size());
        budget.cap(size.saturating_mul(2).saturating_add(HOLES));
        let walk = Walk {
            blocks_left: volume.blocks().min(MAX_DIRECTORY_BLOCKS),
            volume: &volume,
            budget,
            problems,
            tree: Tree::default(),
            visited: HashSet::new(),
            linked: HashMap::new(),
            visits: Vec::new(),
        };
        let tree = walk.run(&root);
        let after = Volume::open(&self.file).and_then(|volume| volume.generation());
        let moved = after.map_or(true, |after| after != before);
        Ok((tree, moved))
    }
}

struct Walk<'a> {
    volume: &'a Volume<'a>,
    budget: &'a mut Budget,
    problems: &'a mut Problems,
    tree: Tree,
    /// Directories that were listed: a second path to one is a loop.
    visited: HashSet<u32>,
    /// Content of files with several names.
    linked: HashMap<u32, Content>,
    visits: Vec<(PathBytes, Inode)>,
    /// All directories together cannot have more blocks than the disk.
    blocks_left: u64,
}

impl Walk<'_> {
    fn run(mut self, root: &Inode) -> Tree {
        self.add((*b"/").into(), root);
        while let Some((path, dir)) = self.visits.pop() {
            self.visit(&path, &dir);
        }
        self.tree
    }

    fn visit(&mut self, path: &PathBytes, dir: &Inode) {
        let mut entries: Vec<DirEntry> = Vec::new();
        let room = self.budget.max_paths.saturating_sub(self.tree.nodes.len());
        let (mut unread, mut refused) = (Vec::new(), Vec::new());
        let mut cut = false;
        let listed = self.volume.list(dir, &mut self.blocks_left, &mut |step| {
            match step {
                Step::Entry(_) if entries.len() >= room => cut = true,
                Step::Entry(entry) => entries.push(entry),
                Step::Refused(_) | Step::Unread(_) if unread.len() + refused.len() > room => {
                    cut = true;
                }
                Step::Refused(error) => refused.push(error),
                Step::Unread(error) => unread.push(error),
            }
            !cut
        });
        for error in unread.into_iter().chain(listed.err()) {
            self.skip(path, &error.to_string());
        }
        for error in refused {
            self.problems
                .unreadable(|| format!("{}: {error}", shown(path)));
        }
        if cut {
            self.bound(path);
        }
        for entry in entries {
            let child = join(path, &entry.name);
            if !self.tree.has_room(&child, self.budget.max_paths) {
                self.bound(path);
                continue;
            }
            if self.tree.nodes.contains_key(&child) {
                self.problems
                    .unreadable(|| format!("{}: a name that occurs twice", shown(&child)));
                continue;
            }
            match self.volume.inode(entry.inode) {
                Ok(inode) => self.add(child, &inode),
                Err(error) => self.add_unreadable(child, &error),
            }
        }
    }

    fn add(&mut self, path: PathBytes, inode: &Inode) {
        let content = self.content(inode);
        let entry = Entry {
            kind: file_kind(inode.kind),
            attributes: Some(Attributes {
                mode: inode.mode,
                uid: inode.uid,
                gid: inode.gid,
            }),
            size: match inode.kind {
                InodeKind::File => inode.size,
                _ => 0,
            },
            modified: inode.modified,
            changed: inode.changed,
            identity: Identity::Inode(inode.number.into(), inode.generation.into()),
            settled: false,
            content,
        };
        if inode.kind == InodeKind::Dir {
            if self.visited.insert(inode.number) {
                self.visits.push((path.clone(), inode.clone()));
            } else {
                self.skip(&path, "a directory that is in two places");
            }
        }
        self.tree.insert(path, Some(entry));
    }

    /// The name is known, what it names is not.
    fn add_unreadable(&mut self, path: PathBytes, error: &Ext4Error) {
        self.problems
            .unreadable(|| format!("{}: {error}", shown(&path)));
        let entry = Entry {
            kind: FileKind::Unknown,
            attributes: None,
            size: 0,
            modified: 0,
            changed: 0,
            identity: Identity::Unknown,
            settled: false,
            content: Content::Unreadable(error.to_string().into()),
        };
        self.tree.insert(path, Some(entry));
    }

    fn content(&mut self, inode: &Inode) -> Content {
        let unreadable = |error: Ext4Error| Content::Unreadable(error.to_string().into());
        match inode.kind {
            InodeKind::File => self.file_content(inode),
            InodeKind::Symlink => self
                .volume
                .target(inode)
                .map_or_else(unreadable, |target| Content::Link(target.into())),
            InodeKind::Char | InodeKind::Block => {
                inode
                    .device()
                    .map_or_else(unreadable, |(major, minor)| Content::Device {
                        major,
                        minor,
                    })
            }
            InodeKind::Dir | InodeKind::Fifo | InodeKind::Socket => Content::None,
        }
    }

    fn file_content(&mut self, inode: &Inode) -> Content {
        if let Some(content) = self.linked.get(&inode.number) {
            return content.clone();
        }
        let mut file = Bytes {
            volume: self.volume,
            inode,
        };
        let content = content::digest(&mut file, inode.size, self.budget);
        if inode.links > 1 {
            self.linked.insert(inode.number, content.clone());
        }
        content
    }

    fn skip(&mut self, dir: &PathBytes, reason: &str) {
        self.problems
            .unreadable(|| format!("{}: {reason}", shown(dir)));
        self.tree.skipped.insert(dir.clone());
    }

    fn bound(&mut self, dir: &PathBytes) {
        self.problems
            .bounded(|| format!("below {}: too many or too long paths", shown(dir)));
        self.tree.skipped.insert(dir.clone());
    }
}

struct Bytes<'a> {
    volume: &'a Volume<'a>,
    inode: &'a Inode,
}

impl ReadAt for Bytes<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String> {
        self.volume
            .read_at(self.inode, offset, buffer)
            .map_err(|error| error.to_string())
    }
}

fn file_kind(kind: InodeKind) -> FileKind {
    match kind {
        InodeKind::File => FileKind::File,
        InodeKind::Dir => FileKind::Dir,
        InodeKind::Symlink => FileKind::Symlink,
        InodeKind::Char => FileKind::Char,
        InodeKind::Block => FileKind::Block,
        InodeKind::Fifo => FileKind::Fifo,
        InodeKind::Socket => FileKind::Socket,
    }
}

#[cfg(test)]
mod tests;
