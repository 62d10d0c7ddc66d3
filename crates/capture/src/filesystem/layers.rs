//! The layers of an overlay, and what their merge shows.
//!
//! The rules are those of the kernel's lookup (Linux, fs/overlayfs/namei.c,
//! `ovl_lookup`) and of Documentation/filesystems/overlayfs.rst. No path is
//! resolved outside its layer: `openat2` with RESOLVE_IN_ROOT, no symbolic
//! link, no other mount.

mod content;
mod links;
#[cfg(test)]
mod tests;

use super::bounds::Budget;
use super::config::OverlayXattrs;
use super::tree::{Xattr, Xattrs};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp,
};
use rustix::io::Errno;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

/// A place in a layer: layer 0 is the upper dir; the path is relative to the
/// layer's root, empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Located {
    pub(crate) layer: usize,
    pub(crate) path: Box<[u8]>,
}

impl Located {
    pub(crate) fn child(&self, name: &[u8]) -> Self {
        let separator: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        Self {
            layer: self.layer,
            path: [&self.path, separator, name].concat().into(),
        }
    }
}

/// The directories that are merged into one, topmost first.
pub(crate) type Stack = Vec<Located>;

/// What a lookup through the layers found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) at: Located,
    pub(crate) stat: Statx,
    /// The directories merged into this one; `None` for anything else.
    pub(crate) dir: Option<Stack>,
}

/// Where the lower part of a merged directory, or a metacopy file's content, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Under this name in the same parent.
    Name(Box<[u8]>),
    /// At this path from the layers' roots.
    Absolute(Box<[u8]>),
}

/// What OverlayFS noted on a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Nothing of the layers below shows through.
    pub(crate) opaque: bool,
    /// It may hold whiteouts that are marked empty files.
    pub(crate) holds_marked_whiteouts: bool,
    pub(crate) redirect: Option<Target>,
}

/// A lookup that failed, in words.
pub(crate) type Failed = String;

/// An overlay's layers.
#[derive(Debug)]
pub(crate) struct Layers {
    /// The upper dir, the lower layers, and the data-only layers.
    roots: Vec<OwnedFd>,
    /// How many of them show in the merge.
    merged: usize,
    xattrs: OverlayXattrs,
}

impl OverlayXattrs {
    pub(super) fn is_trusted(self) -> bool {
        matches!(self, Self::Trusted { .. })
    }

    fn follows_redirects(self) -> bool {
        matches!(self, Self::Trusted { redirects, .. } if redirects)
    }

    fn follows_metacopy(self) -> bool {
        matches!(self, Self::Trusted { metacopy, .. } if metacopy)
    }

    /// What an attribute of a layer is called in the sandbox; `None` for one
    /// that OverlayFS keeps for itself. Since Linux 6.7 an attribute of the
    /// sandbox that has such a name is stored with `overlay.` inserted
    /// (fs/overlayfs/xattrs.c, `ovl_own_xattr_set`).
    pub(super) fn as_seen_inside(self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        let own: &[u8] = match self {
            Self::Trusted { .. } => b"trusted.overlay.",
            Self::User => b"user.overlay.",
            Self::Ignored => return Some(name.into()),
        };
        let Some(mark) = name.strip_prefix(own) else {
            return Some(name.into());
        };
        let escaped = mark.strip_prefix(b"overlay.")?;
        Some([own, escaped].concat().into())
    }
}

const IN_LAYER: ResolveFlags = ResolveFlags::IN_ROOT
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

impl Layers {
    /// `roots`: the upper dir, then the lower ones, topmost first. `data`: the
    /// data-only ones.
    pub(crate) fn new(mut roots: Vec<OwnedFd>, data: Vec<OwnedFd>, xattrs: OverlayXattrs) -> Self {
        let merged = roots.len();
        roots.extend(data);
        Self {
            roots,
            merged,
            xattrs,
        }
    }

    /// The root of all layers below `layer`.
    pub(crate) fn roots_below(&self, layer: usize) -> Stack {
        (layer + 1..self.merged)
            .map(|layer| Located {
                layer,
                path: Box::default(),
            })
            .collect()
    }

    /// A handle that names the file and does nothing else to it.
    pub(crate) fn open_path(&self, at: &Located) -> Result<OwnedFd, Errno> {
        self.open(at, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// A directory, to be listed.
    pub(crate) fn open_dir(&self, at: &Located) -> Result<OwnedFd, Errno> {
        self.open(at, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open(&self, at: &Located, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.roots.get(at.layer).ok_or(Errno::NOENT)?;
        let path: &[u8] = if at.path.is_empty() { b"." } else { &at.path };
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(root, path, flags, Mode::empty(), IN_LAYER)
    }

    /// What `at` is; `None` if there is no such thing in its layer.
    fn stat(&self, at: &Located) -> Result<Option<(OwnedFd, Statx)>, Failed> {
        let found = self
            .open_path(at)
            .and_then(|fd| stat_fd(&fd).map(|stat| (fd, stat)));
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(failed("look up", at, errno)),
        }
    }

    /// What the merge of `stack` shows under `name`.
    pub(crate) fn child(&self, stack: &[Located], name: &[u8]) -> Result<Option<Found>, Failed> {
        self.find(stack.to_vec(), Target::Name(name.into()))
    }

    /// What the directories of `stack` show under `target`, where a redirect
    /// changes the target for the layers below it.
    pub(crate) fn find(&self, stack: Stack, target: Target) -> Result<Option<Found>, Failed> {
        let mut from_roots = matches!(target, Target::Absolute(_));
        let mut search = Search {
            layers: self,
            target,
            stop: false,
        };
        let mut found: Option<Found> = None;
        let mut rest = stack.into_iter();
        while let (false, Some(parent)) = (search.stop, rest.next()) {
            let Some((at, stat)) = search.in_layer(&parent)? else {
                continue;
            };
            if !is_dir(&stat) {
                let leaf = Found {
                    at,
                    stat,
                    dir: None,
                };
                return Ok(found.or(Some(leaf)));
            }
            if !from_roots && matches!(search.target, Target::Absolute(_)) {
                from_roots = true;
                rest = self.roots_below(at.layer).into_iter();
            }
            let found = found.get_or_insert_with(|| Found {
                at: at.clone(),
                stat,
                dir: None,
            });
            found.dir.get_or_insert_default().push(at);
        }
        Ok(found)
    }

    /// Names in any directory of `stack`, hidden or not; at most `limit`.
    pub(crate) fn names(&self, stack: &[Located], limit: usize) -> Result<Names, Failed> {
        let mut names = Names::default();
        for at in stack {
            let fd = self
                .open_dir(at)
                .map_err(|errno| failed("open", at, errno))?;
            names
                .add(&fd, limit)
                .map_err(|errno| failed("list", at, errno))?;
        }
        Ok(names)
    }

    /// A whiteout hides the name in all layers below: a character device 0:0,
    /// or a marked empty file.
    pub(crate) fn is_whiteout(
        &self,
        at: &Located,
        fd: &OwnedFd,
        stat: &Statx,
    ) -> Result<bool, Failed> {
        if self.is_device_whiteout(stat) {
            return Ok(true);
        }
        if kind(stat) != FileType::RegularFile || stat.stx_size != 0 {
            return Ok(false);
        }
        let mark = self.mark_of(fd, at, "whiteout")?;
        Ok(mark.is_some() && self.marks(&parent(at))?.holds_marked_whiteouts)
    }

    /// A character device 0:0.
    pub(crate) fn is_device_whiteout(&self, stat: &Statx) -> bool {
        self.xattrs != OverlayXattrs::Ignored
            && kind(stat) == FileType::CharacterDevice
            && (stat.stx_rdev_major, stat.stx_rdev_minor) == (0, 0)
    }

    /// The marks of a directory.
    pub(crate) fn marks(&self, at: &Located) -> Result<Marks, Failed> {
        let fd = self
            .open_path(at)
            .map_err(|errno| failed("open", at, errno))?;
        let opaque = self.mark_of(&fd, at, "opaque")?;
        let is_opaque = opaque.as_deref() == Some(b"y");
        Ok(Marks {
            opaque: is_opaque,
            holds_marked_whiteouts: opaque.as_deref() == Some(b"x"),
            redirect: match is_opaque {
                // Nobody looks below it.
                true => None,
                false => self.redirect_of(&fd, at)?,
            },
        })
    }

    /// An error where there is one that the overlay refuses to follow, as it
    /// refuses whoever looks that up.
    fn redirect_of(&self, fd: &OwnedFd, at: &Located) -> Result<Option<Target>, Failed> {
        match self.mark_of(fd, at, "redirect")? {
            Some(_) if !self.xattrs.follows_redirects() => Err(failed(
                "look up",
                at,
                "it has a redirect, and the overlay follows none (redirect_dir=nofollow)",
            )),
            redirect => redirect.map(|value| parse_redirect(&value)).transpose(),
        }
    }

    /// A file's attributes, without those that OverlayFS keeps for itself.
    /// [`Xattrs::NotRead`], and a note of it in `budget`, where they cannot be
    /// read: some file systems take more names than the kernel lists.
    pub(crate) fn xattrs(&self, at: &Located, budget: &mut Budget) -> Result<Xattrs, Errno> {
        let fd = self.open_path(at)?;
        let reason = match self.list_xattrs(&fd, budget) {
            Ok(Some(list)) => return Ok(Xattrs::of(list, &mut budget.attribute_room)),
            Ok(None) => "more than one scan reads".to_owned(),
            // It went away.
            Err(Errno::NOENT) => return Err(Errno::NOENT),
            Err(errno) => errno.to_string(),
        };
        budget.attributes_unread(|| failed("read the attributes of", at, reason));
        Ok(Xattrs::NotRead)
    }

    /// `None` where the budget does not suffice.
    fn list_xattrs(&self, fd: &OwnedFd, budget: &mut Budget) -> Result<Option<Vec<Xattr>>, Errno> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let list = match growing(|buffer| rustix::fs::listxattr(&link, buffer)) {
            Err(Errno::OPNOTSUPP) => return Ok(Some(Vec::new())),
            list => list?,
        };
        let mut xattrs = Vec::new();
        for name in list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let Some(seen) = self.xattrs.as_seen_inside(name) else {
                continue;
            };
            match growing(|buffer| rustix::fs::getxattr(&link, name, buffer)) {
                Ok(value) => {
                    if !budget.spend_on_attribute(name.len() + value.len()) {
                        return Ok(None);
                    }
                    xattrs.push(Xattr::new(&seen, &value));
                }
                // Removed since it was listed, or not for us to read.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Some(xattrs))
    }

    fn mark_of(&self, fd: &OwnedFd, at: &Located, mark: &str) -> Result<Option<Vec<u8>>, Failed> {
        let prefix = match self.xattrs {
            OverlayXattrs::Trusted { .. } => "trusted",
            OverlayXattrs::User => "user",
            OverlayXattrs::Ignored => return Ok(None),
        };
        let name = format!("{prefix}.overlay.{mark}");
        // A handle with O_PATH has no attributes of its own to read; the
        // kernel's link to it does, and names that very file.
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut value = vec![0; super::tree::MAX_PATH];
        match rustix::fs::getxattr(link, name, value.as_mut_slice()) {
            Ok(len) => {
                value.truncate(len);
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(failed("read the overlay marks of", at, errno)),
        }
    }
}

/// A lookup on its way down the layers.
struct Search<'a> {
    layers: &'a Layers,
    target: Target,
    /// The layers below do not count.
    stop: bool,
}

impl Search<'_> {
    /// Looks for the target in one layer; `parent` is where a plain name is.
    fn in_layer(&mut self, parent: &Located) -> Result<Option<(Located, Statx)>, Failed> {
        let path = match self.target.clone() {
            Target::Name(name) => return self.single(parent, &name, b""),
            Target::Absolute(path) => path,
        };
        let mut at = Located {
            layer: parent.layer,
            path: Box::default(),
        };
        let mut rest: &[u8] = &path;
        loop {
            let end = rest.iter().position(|byte| *byte == b'/');
            let (name, after) = rest
                .split_at_checked(end.unwrap_or(rest.len()))
                .unwrap_or_default();
            let Some((found, stat)) = self.single(&at, name, after)? else {
                return Ok(None);
            };
            let Some(below) = after.strip_prefix(b"/") else {
                return Ok(Some((found, stat)));
            };
            (at, rest) = (found, below);
        }
    }

    /// Looks for one name. `after`: what of the target's path comes behind it.
    fn single(
        &mut self,
        dir: &Located,
        name: &[u8],
        after: &[u8],
    ) -> Result<Option<(Located, Statx)>, Failed> {
        let at = dir.child(name);
        let Some((fd, stat)) = self.layers.stat(&at)? else {
            return Ok(None);
        };
        if !is_dir(&stat) {
            let hides = !after.is_empty() || self.layers.is_whiteout(&at, &fd, &stat)?;
            self.stop |= hides;
            return Ok((!hides).then_some((at, stat)));
        }
        let marks = self.layers.marks(&at)?;
        if marks.opaque {
            self.stop = true;
            return Ok(Some((at, stat)));
        }
        match (marks.redirect, &self.target) {
            (None, _) => {}
            (Some(Target::Absolute(path)), _) => {
                // Stronger than an opaque directory above it.
                self.stop = false;
                self.target = Target::Absolute([&path, after].concat().into());
            }
            (Some(Target::Name(redirect)), Target::Name(_)) => {
                self.target = Target::Name(redirect);
            }
            (Some(Target::Name(redirect)), Target::Absolute(path)) => {
                let before = path.len().saturating_sub(name.len() + after.len());
                let before = path.get(..before).unwrap_or_default();
                self.target = Target::Absolute([before, &redirect, after].concat().into());
            }
        }
        Ok(Some((at, stat)))
    }
}

/// Names of directory entries, at most as many as was asked for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) names: BTreeSet<Box<[u8]>>,
    /// Whether there were more.
    pub(crate) cut: bool,
}

impl Names {
    pub(crate) fn add(&mut self, dir: impl AsFd, limit: usize) -> Result<(), Errno> {
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if self.names.len() >= limit {
                self.cut = true;
                break;
            }
            self.names.insert(name.into());
        }
        Ok(())
    }
}

/// What `read` gives, with as much room as it takes; 64 KiB is the most that
/// the kernel gives.
fn growing(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut len = 256;
    loop {
        let mut buffer = vec![0; len];
        match read(&mut buffer) {
            Err(Errno::RANGE) if len < 64 << 10 => len = 64 << 10,
            Err(errno) => return Err(errno),
            Ok(got) => {
                buffer.truncate(got);
                return Ok(buffer);
            }
        }
    }
}

pub(crate) fn stat_fd(fd: &OwnedFd) -> Result<Statx, Errno> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STAT)
}

/// What changes with anything of a file or a directory: its inode, its times
/// of change in nanoseconds since the epoch, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    changed: i64,
    modified: i64,
    size: u64,
}

impl Stamp {
    pub(crate) fn of(stat: &Statx) -> Self {
        Self {
            inode: stat.stx_ino,
            changed: nanoseconds(stat.stx_ctime),
            modified: nanoseconds(stat.stx_mtime),
            size: stat.stx_size,
        }
    }
}

pub(crate) fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec.into())
}

/// What the scan asks of a file.
pub(crate) const STAT: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

pub(crate) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

pub(crate) fn is_dir(stat: &Statx) -> bool {
    kind(stat) == FileType::Directory
}

/// Only what OverlayFS itself would write: a path from the root without `.`
/// and `..`, or one plain name.
pub(super) fn parse_redirect(value: &[u8]) -> Result<Target, Failed> {
    let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    match value.strip_prefix(b"/") {
        Some(path) if path.split(|byte| *byte == b'/').all(plain) => {
            Ok(Target::Absolute(path.into()))
        }
        None if plain(value) && !value.contains(&b'/') => Ok(Target::Name(value.into())),
        _ => Err(format!(
            "overlay.redirect is not a path: {}",
            super::tree::shown(value)
        )),
    }
}

fn parent(at: &Located) -> Located {
    let end = at.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    Located {
        layer: at.layer,
        path: at.path.get(..end).unwrap_or_default().into(),
    }
}

fn failed(doing: &str, at: &Located, reason: impl std::fmt::Display) -> Failed {
    let layer = match at.layer {
        0 => "upper dir".to_owned(),
        number => format!("lower layer {number}"),
    };
    let path = super::tree::shown(&at.path);
    format!("cannot {doing} /{path} in the {layer}: {reason}")
}
