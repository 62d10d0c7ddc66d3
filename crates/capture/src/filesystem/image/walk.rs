//! Index of an ext4 file system.

use super::super::bounds::{Budget, Problems};
use super::super::content::{self, Content, ReadAt};
use super::super::disk::{Blocks, Ranges};
use super::super::ext4::{
    DirEntry, Ext4Error, Inode, InodeKind, SharedXattrs, Step, Touched, Volume,
};
use super::super::tree::{
    Attributes, Delta, Entry, Identity, PathBytes, Tree, Xattrs, join, shown,
};
use sandtrace_event::{Digest, FileKind, HashScope};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::RandomState;

/// How often a file system is read that moved meanwhile, or seemed to be none.
const ATTEMPTS: usize = 3;
const ROOT: u32 = 2;
/// Blocks of all directories together: as the disk has, and at most these.
const MAX_DIRECTORY_BLOCKS: u64 = 1 << 24;

/// What is known of a file system from the scan before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Old<'a> {
    pub(crate) tree: &'a Tree,
    /// Bytes written since; `None`: it is not known.
    pub(crate) changed: Option<&'a Ranges>,
    /// Blocks that came from the journal then.
    pub(crate) journaled: &'a BTreeSet<u64>,
    /// Key of the marks of places, the same for all scans.
    pub(crate) key: &'a RandomState,
    /// Files are only pointed at: what is read stays as it is.
    pub(crate) lazy: bool,
}

/// What a walk found.
#[derive(Debug)]
pub(crate) struct ReadPart<'a> {
    /// `None` if nothing could be read at all.
    pub(crate) tree: Option<Delta<'a>>,
    /// Whether the guest wrote meanwhile, each time: what was found may mix
    /// several moments.
    pub(crate) moved: bool,
    pub(crate) journaled: BTreeSet<u64>,
}

/// Walks a file system.
pub(crate) fn walk<'a>(
    disk: &dyn Blocks,
    old: Old<'a>,
    budget: &mut Budget,
    problems: &mut Problems,
) -> ReadPart<'a> {
    let mut attempts = 1;
    loop {
        let (mut spent, mut found) = (budget.clone(), Problems::default());
        let walked = walk_once(disk, old, &mut spent, &mut found);
        let is_still = walked.as_ref().is_ok_and(|walked| !walked.moved);
        if attempts < ATTEMPTS && !is_still {
            attempts += 1;
            disk.drop_cached();
            continue;
        }
        (*budget, *problems) = (spent, found);
        return walked.unwrap_or_else(|error| {
            problems.unreadable(|| format!("the whole file system: {error}"));
            ReadPart {
                tree: None,
                moved: false,
                journaled: BTreeSet::new(),
            }
        });
    }
}

fn walk_once<'a>(
    disk: &dyn Blocks,
    old: Old<'a>,
    budget: &mut Budget,
    problems: &mut Problems,
) -> Result<ReadPart<'a>, Ext4Error> {
    let stamp = disk.stamp();
    let volume = Volume::open(disk)?;
    let before = volume.generation()?;
    let root = volume.inode(ROOT)?;
    if let Some(left_out) = volume.unreplayed() {
        problems.unreadable(|| left_out.to_owned());
    }
    let touched = old.changed.map(|ranges| Touched {
        ranges,
        journaled: old.journaled,
        hash_bound: budget.hash_bound,
    });
    let walk = Walk {
        blocks_left: volume.blocks().min(MAX_DIRECTORY_BLOCKS),
        runs_left: volume.blocks().saturating_mul(4).saturating_add(1 << 20),
        volume: &volume,
        budget,
        problems,
        tree: Delta::new(old.tree),
        old,
        touched,
        visited: HashSet::new(),
        linked: HashMap::new(),
        shared: SharedXattrs::default(),
        visits: Vec::new(),
    };
    let tree = walk.run(&root);
    let after = Volume::open(disk).and_then(|volume| volume.generation());
    // Not all that is written is committed to a journal: the stamp tells of the
    // rest, and where there is none, what was read is looked at again.
    let is_still = disk.stamp() == stamp && (stamp.is_some() || disk.is_as_read());
    let moved = after.map_or(true, |after| after != before) || !is_still;
    Ok(ReadPart {
        tree: Some(tree),
        moved,
        journaled: volume.journaled(),
    })
}

/// Reads a file of a volume.
pub(crate) fn read_inode(volume: &Volume<'_>, number: u32, budget: &mut Budget) -> Content {
    match volume.inode(number) {
        Ok(inode) => {
            let inode = &inode;
            content::digest(&mut Bytes { volume, inode }, inode.size, budget)
        }
        Err(error) => Content::Unreadable(error.to_string().into()),
    }
}

struct Walk<'a, 'v> {
    volume: &'v Volume<'v>,
    budget: &'v mut Budget,
    problems: &'v mut Problems,
    tree: Delta<'a>,
    old: Old<'a>,
    touched: Option<Touched<'a>>,
    /// Directories that were listed: a second path to one is a loop.
    visited: HashSet<u32>,
    /// Content of files with several names.
    linked: HashMap<u32, (Content, i64)>,
    shared: SharedXattrs,
    visits: Vec<(PathBytes, Inode)>,
    /// All directories together cannot have more blocks than the disk.
    blocks_left: u64,
    /// Nor can all files have many more pieces than that.
    runs_left: u64,
}

impl<'a> Walk<'a, '_> {
    fn run(mut self, root: &Inode) -> Delta<'a> {
        self.add((*b"/").into(), root);
        while let Some((path, dir)) = self.visits.pop() {
            self.visit(&path, &dir);
        }
        self.tree
    }

    fn visit(&mut self, path: &PathBytes, dir: &Inode) {
        let mut entries: Vec<DirEntry> = Vec::new();
        let room = self.budget.max_paths.saturating_sub(self.tree.len());
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
            if self.tree.contains(&child) {
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
        let xattrs = self.xattrs(&path, inode);
        let mut entry = Entry {
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
            mark: 0,
            identity: Identity::Inode(inode.number.into(), inode.generation.into()),
            settled: false,
            content: Content::None,
            xattrs,
        };
        self.read(&path, inode, &mut entry);
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
            mark: 0,
            identity: Identity::Unknown,
            settled: false,
            content: Content::Unreadable(error.to_string().into()),
            xattrs: Xattrs::NotRead,
        };
        self.tree.insert(path, Some(entry));
    }

    /// Where they cannot be read, what was known of them holds: a later scan
    /// that can compares with that.
    fn xattrs(&mut self, path: &PathBytes, inode: &Inode) -> Xattrs {
        let budget = &mut *self.budget;
        let left = &mut budget.attribute_bytes;
        let error = match self.volume.xattrs(inode, &mut self.shared, left) {
            Ok(found) => return Xattrs::of(found, &mut budget.attribute_room),
            Err(error) => error,
        };
        let detail = || format!("{}: {error}", shown(path));
        match error {
            Ext4Error::Bound(_) => self.problems.bounded(detail),
            _ => self.problems.unreadable(detail),
        }
        let known = self.old.tree.get(path).flatten();
        known.map_or(Xattrs::NotRead, |known| known.xattrs)
    }

    /// Reads what the inode holds into its entry.
    fn read(&mut self, path: &PathBytes, inode: &Inode, entry: &mut Entry) {
        let unreadable = |error: Ext4Error| Content::Unreadable(error.to_string().into());
        if let Some(sealed) = sealed_link(inode) {
            entry.content = sealed;
            return;
        }
        entry.content = match inode.kind {
            InodeKind::Dir | InodeKind::Symlink if inode.is_encrypted() => {
                return self.read_file(path, inode, entry);
            }
            InodeKind::File => return self.read_file(path, inode, entry),
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
        };
    }

    fn read_file(&mut self, path: &PathBytes, inode: &Inode, entry: &mut Entry) {
        if let Some((content, mark)) = self.linked.get(&inode.number) {
            (entry.content, entry.mark) = (content.clone(), *mark);
            return;
        }
        let key = self.old.key;
        let touched = self.touched.as_ref();
        let layout = self.volume.layout(inode, touched, key, &mut self.runs_left);
        match layout {
            Ok(layout) => {
                entry.mark = layout.mark;
                let known = self.old.tree.get(path).flatten();
                let known = known.filter(|known| known.identity == entry.identity);
                let is_same = |known: &Entry| {
                    (known.kind, known.size, known.mark) == (entry.kind, entry.size, entry.mark)
                        && !matches!(known.content, Content::Skipped | Content::Unreadable(_))
                };
                let is_same = known.as_ref().is_some_and(is_same);
                entry.content = match known.map(|known| known.content) {
                    Some(content) if is_same && !layout.is_touched => content,
                    known => {
                        let mut content = self.file_content(inode);
                        count_write(&mut content, known.as_ref(), layout.is_touched_unread);
                        content
                    }
                };
            }
            Err(error) => entry.content = Content::Unreadable(error.to_string().into()),
        }
        if inode.links > 1 {
            let read = (entry.content.clone(), entry.mark);
            self.linked.insert(inode.number, read);
        }
    }

    fn file_content(&mut self, inode: &Inode) -> Content {
        let volume = self.volume;
        if inode.is_encrypted() {
            let size = inode.size.checked_next_multiple_of(volume.block_size());
            let size = size.unwrap_or(inode.size);
            return content::digest(&mut Stored { volume, inode }, size, self.budget).sealed();
        }
        if self.old.lazy {
            return Content::InBase(inode.number);
        }
        content::digest(&mut Bytes { volume, inode }, inode.size, self.budget)
    }

    fn skip(&mut self, dir: &PathBytes, reason: &str) {
        self.problems
            .unreadable(|| format!("{}: {reason}", shown(dir)));
        self.tree.skipped().insert(dir.clone());
    }

    fn bound(&mut self, dir: &PathBytes) {
        self.problems
            .bounded(|| format!("below {}: too many or too long paths", shown(dir)));
        self.tree.skipped().insert(dir.clone());
    }
}

/// What is hashed of a large file may be as it was where the file is not.
fn count_write(content: &mut Content, known: Option<&Content>, is_touched: bool) {
    let before = match known {
        Some(Content::Hashed { writes, .. } | Content::Sealed { writes, .. }) => *writes,
        _ => 0,
    };
    if let Content::Hashed {
        scope: HashScope::HeadTail,
        writes,
        ..
    }
    | Content::Sealed { writes, .. } = content
    {
        *writes = before.wrapping_add(u32::from(is_touched));
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

/// An encrypted link that is short enough to be in its inode, where others have
/// the places of their blocks.
fn sealed_link(inode: &Inode) -> Option<Content> {
    let is_sealed = inode.kind == InodeKind::Symlink && inode.is_encrypted();
    let sealed = inode.short_target().filter(|_| is_sealed)?;
    Some(Content::Sealed {
        digest: Digest(Sha256::digest(sealed).into()),
        writes: 0,
    })
}

/// A file as it is on the disk, in whole blocks.
struct Stored<'a> {
    volume: &'a Volume<'a>,
    inode: &'a Inode,
}

impl ReadAt for Stored<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String> {
        self.volume
            .read_stored(self.inode, offset, buffer)
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
