//! Entries of a layer, and the content of its files.

use super::super::bounds::Budget;
use super::super::content::{self, Content, ReadAt};
use super::super::layers::{Found, Layers, Located, Stamp, is_dir, kind, nanoseconds, stat_fd};
use super::super::tree::{Attributes, Entry, Identity, Xattrs};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Statx, StatxFlags};
use sandtrace_event::FileKind;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// How often a file is read again that changed while it was read.
const ATTEMPTS: usize = 3;
/// No file system's clock is coarser, and no two clocks of a host differ more.
const CLOCK_SLACK: i64 = 1_000_000_000;

pub(super) struct Reader<'a> {
    layers: &'a Layers,
    /// The wall clock when the scan began.
    now: Option<i64>,
    /// Latest change seen, which is not later than now, where no clock was given.
    latest: i64,
    /// Content of upper files with several names, as they were then.
    linked: HashMap<u64, (Content, Stamp)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Layers, now: Option<i64>) -> Self {
        Self {
            layers,
            now,
            latest: i64::MIN,
            linked: HashMap::new(),
        }
    }

    /// The root of the merged view, which is the upper dir's at all times.
    pub(super) fn root(&mut self, budget: &mut Budget) -> Result<Option<Entry>, String> {
        let root = Located {
            layer: 0,
            path: Box::default(),
        };
        let stat = self.layers.open_path(&root).and_then(|fd| stat_fd(&fd));
        let stat = stat.map_err(|errno| errno.to_string())?;
        Ok(Some(self.with_xattrs(&root, &stat, None, budget)?))
    }

    /// What `stat` says, and the attributes; where these cannot be read, those
    /// that were known.
    fn with_xattrs(
        &mut self,
        at: &Located,
        stat: &Statx,
        known: Option<&Entry>,
        budget: &mut Budget,
    ) -> Result<Entry, String> {
        let mut entry = self.entry(stat);
        let xattrs = self.layers.xattrs(at, budget);
        entry.xattrs = match (xattrs.map_err(|errno| errno.to_string())?, known) {
            (Xattrs::NotRead, Some(known)) => known.xattrs.clone(),
            (xattrs, _) => xattrs,
        };
        Ok(entry)
    }

    /// `known`: what its path was at the last scan; `origin`: the lower
    /// directory that it was renamed from.
    pub(super) fn directory(
        &mut self,
        at: &Located,
        stat: &Statx,
        known: Option<&Entry>,
        origin: Option<&Located>,
        budget: &mut Budget,
    ) -> Result<Entry, String> {
        let mut entry = self.entry(stat);
        if let Some(at) = origin {
            entry.identity = Identity::Lower(Arc::new(at.clone()));
        }
        if let Some(known) = known.filter(|known| known.is_unchanged(&entry)) {
            entry.xattrs = known.xattrs.clone();
            return Ok(entry);
        }
        let Entry { xattrs, .. } = self.with_xattrs(at, stat, known, budget)?;
        Ok(Entry { xattrs, ..entry })
    }

    /// A file, link, pipe, socket or device of the upper dir. `known`: what
    /// its path was at the last scan; `below`: the layers under its parent.
    pub(super) fn upper_file(
        &mut self,
        at: &Located,
        stat: &Statx,
        known: Option<&Entry>,
        below: &[Located],
        budget: &mut Budget,
    ) -> Result<Entry, String> {
        let mut entry = self.entry(stat);
        if let Some(known) = known.filter(|known| known.is_unchanged(&entry)) {
            entry.content = known.content.clone();
            entry.xattrs = known.xattrs.clone();
            return Ok(entry);
        }
        let mut stat = *stat;
        for _ in 0..ATTEMPTS {
            entry = self.with_xattrs(at, &stat, known, budget)?;
            let stamp = Stamp::of(&stat);
            match self.linked.get(&stat.stx_ino) {
                Some((content, then)) if *then == stamp => {
                    entry.content = content.clone();
                    return Ok(entry);
                }
                _ => {}
            }
            let read = self.content(at, &stat, below, budget);
            let (content, as_read) = read.unwrap_or_else(|reason| (unreadable(reason), stat));
            entry.content = content;
            if Stamp::of(&as_read) == stamp {
                if stat.stx_nlink > 1 {
                    let read = (entry.content.clone(), stamp);
                    self.linked.insert(stat.stx_ino, read);
                }
                return Ok(entry);
            }
            // Size and mode must be those of the content.
            stat = as_read;
        }
        entry.content = unreadable(RESTLESS);
        Ok(entry)
    }

    /// Something that a lookup found in the lower layers under `below`.
    pub(super) fn lower_entry(
        &mut self,
        found: &Found,
        below: &[Located],
        budget: &mut Budget,
    ) -> Result<Entry, String> {
        let mut entry = self.with_xattrs(&found.at, &found.stat, None, budget)?;
        entry.identity = Identity::Lower(Arc::new(found.at.clone()));
        entry.content = match kind(&found.stat) {
            FileType::RegularFile => match self.lower_content(found, below) {
                Ok(at) => Content::Lower(Arc::new(at)),
                Err(reason) => unreadable(reason),
            },
            _ => self
                .special(&found.at, &found.stat)
                .unwrap_or_else(unreadable),
        };
        Ok(entry)
    }

    fn lower_content(&self, found: &Found, below: &[Located]) -> Result<Located, String> {
        let fd = self
            .layers
            .open_path(&found.at)
            .map_err(|errno| errno.to_string())?;
        let below: Vec<_> = below
            .iter()
            .filter(|parent| parent.layer > found.at.layer)
            .cloned()
            .collect();
        let elsewhere = self.layers.content_of(&found.at, &fd, &below)?;
        Ok(elsewhere.unwrap_or_else(|| found.at.clone()))
    }

    /// The content, and what the file was when it was read.
    fn content(
        &self,
        at: &Located,
        stat: &Statx,
        below: &[Located],
        budget: &mut Budget,
    ) -> Result<(Content, Statx), String> {
        if kind(stat) != FileType::RegularFile {
            return Ok((self.special(at, stat)?, *stat));
        }
        let fd = self
            .layers
            .open_path(at)
            .map_err(|errno| errno.to_string())?;
        match self.layers.content_of(at, &fd, below)? {
            Some(at) => Ok((Content::Lower(Arc::new(at)), *stat)),
            None => hash_fd(&fd, budget).map_err(|errno| errno.to_string()),
        }
    }

    fn special(&self, at: &Located, stat: &Statx) -> Result<Content, String> {
        Ok(match kind(stat) {
            FileType::Symlink => {
                let read = |fd: OwnedFd| rustix::fs::readlinkat(fd, c"", Vec::new());
                let target = self.layers.open_path(at).and_then(read);
                let target = target.map_err(|errno| errno.to_string())?;
                Content::Link(target.into_bytes().into())
            }
            FileType::CharacterDevice | FileType::BlockDevice => Content::Device {
                major: stat.stx_rdev_major,
                minor: stat.stx_rdev_minor,
            },
            _ => Content::None,
        })
    }

    /// Hashes a regular file of any layer.
    pub(super) fn hash(&self, at: &Located, budget: &mut Budget) -> Content {
        let hashed = self.layers.open_path(at).map_err(io::Error::from);
        match hashed.and_then(|fd| hash_fd(&fd, budget)) {
            Ok((content, _)) => content,
            Err(error) => unreadable(error.to_string()),
        }
    }

    /// What `stat` says, without content.
    fn entry(&mut self, stat: &Statx) -> Entry {
        let changed = nanoseconds(stat.stx_ctime);
        self.latest = self.latest.max(changed);
        let born = match stat.stx_mask & StatxFlags::BTIME.bits() {
            0 => None,
            _ => Some(nanoseconds(stat.stx_btime)),
        };
        Entry {
            kind: file_kind(kind(stat)),
            attributes: Some(Attributes {
                mode: u32::from(stat.stx_mode) & 0o7777,
                uid: stat.stx_uid,
                gid: stat.stx_gid,
            }),
            size: match kind(stat) {
                FileType::RegularFile => stat.stx_size,
                _ => 0,
            },
            modified: nanoseconds(stat.stx_mtime),
            mark: changed,
            identity: born.map_or(Identity::Unknown, |born| {
                Identity::Inode(stat.stx_ino, born.cast_unsigned())
            }),
            settled: changed < self.now.unwrap_or(self.latest).saturating_sub(CLOCK_SLACK),
            content: Content::None,
            xattrs: Xattrs::default(),
        }
    }
}

const RESTLESS: &str = "it kept changing while it was read";

fn unreadable(reason: impl Into<Box<str>>) -> Content {
    Content::Unreadable(reason.into())
}

/// Hashes the file that `path_fd` (opened with O_PATH, so that opening it had
/// no effect) names, if it is a regular one; and what it was then.
fn hash_fd(path_fd: &OwnedFd, budget: &mut Budget) -> io::Result<(Content, Statx)> {
    for _ in 1..ATTEMPTS {
        let (content, stat, stood_still) = hash_once(path_fd, budget)?;
        if stood_still || matches!(content, Content::Skipped) {
            return Ok((content, stat));
        }
    }
    let (content, stat, stood_still) = hash_once(path_fd, budget)?;
    match stood_still {
        true => Ok((content, stat)),
        false => Ok((unreadable(RESTLESS), stat)),
    }
}

/// The content, what the file was before it was read, and whether it stood
/// still meanwhile.
fn hash_once(path_fd: &OwnedFd, budget: &mut Budget) -> io::Result<(Content, Statx, bool)> {
    let before = stat_fd(path_fd)?;
    if kind(&before) != FileType::RegularFile || is_dir(&before) {
        return Ok((unreadable("it is no longer a file"), before, true));
    }
    let mut file = Plain(File::open(format!(
        "/proc/self/fd/{}",
        path_fd.as_raw_fd()
    ))?);
    let content = content::digest(&mut file, before.stx_size, budget);
    let after = stat_fd(path_fd)?;
    Ok((content, before, Stamp::of(&before) == Stamp::of(&after)))
}

struct Plain(File);

impl ReadAt for Plain {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String> {
        self.0
            .read_at(buffer, offset)
            .map_err(|error| error.to_string())
    }
}

fn file_kind(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Dir,
        FileType::Symlink => FileKind::Symlink,
        FileType::CharacterDevice => FileKind::Char,
        FileType::BlockDevice => FileKind::Block,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::Unknown => FileKind::Unknown,
    }
}
