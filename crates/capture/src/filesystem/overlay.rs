//! Index of what an overlay's upper dir decides.
//!
//! Only paths that the upper dir decides are in the index: what it holds, what
//! its whiteouts and opaque directories hide, and what a redirected directory
//! shows from elsewhere. Every other path is as the lower layers have it, so a
//! scan costs what the upper dir holds, not what lies below it.

mod lower;
mod read;
#[cfg(test)]
mod tests;

pub use super::mountinfo::{OverlayMount, mount_for_upper, mounts_for_upper};

use super::bounds::{Budget, Problems};
use super::config::{FsError, OverlayXattrs};
use super::content::Content;
use super::layers::is_dir;
use super::layers::{Failed, Found, Layers, Located, Names, STAT, Stack, Stamp, Target, stat_fd};
use super::tree::{Delta, Node, PathBytes, Tree, join, shown};
use read::Reader;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, Statx};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use sandtrace_event::DiskIdentity;
use std::path::Path;

/// An overlay's layers, open.
#[derive(Debug)]
pub(crate) struct Overlay {
    layers: Layers,
    /// The marks that OverlayFS keeps under `trusted.` cannot be read: without
    /// CAP_SYS_ADMIN the kernel says that there are none.
    is_blind: bool,
}

impl Overlay {
    /// `expected` is what the open upper dir itself must be.
    pub(crate) fn open(
        upper: &Path,
        lowers: &[impl AsRef<Path>],
        data: &[impl AsRef<Path>],
        xattrs: OverlayXattrs,
        expected: Option<&DiskIdentity>,
    ) -> Result<Self, FsError> {
        let upper = open_upper(upper, expected)?;
        let lowers = lowers
            .iter()
            .map(|lower| open_root("lower", lower.as_ref()));
        let roots = std::iter::once(Ok(upper)).chain(lowers);
        let roots = roots.collect::<Result<_, _>>()?;
        let data = data.iter().map(|data| open_root("data", data.as_ref()));
        let data = data.collect::<Result<_, _>>()?;
        Ok(Self {
            layers: Layers::new(roots, data, xattrs),
            is_blind: xattrs.is_trusted() && !reads_trusted(),
        })
    }

    /// Walks the upper dir, again where it moved meanwhile and that costs
    /// little. What the index before proves unchanged is not read again,
    /// unless `afresh`; `now` is the wall clock at the start, in nanoseconds.
    pub(crate) fn walk<'a>(
        &'a self,
        before: &'a Tree,
        (afresh, now): (bool, Option<i64>),
        budget: &mut Budget,
        problems: &mut Problems,
    ) -> Walked<'a> {
        let mut attempts = 1;
        loop {
            let (mut spent, mut found) = (budget.clone(), Problems::default());
            if self.is_blind {
                found.unreadable(|| BLIND.to_owned());
            }
            let walk = Walk {
                layers: &self.layers,
                previous: (!afresh).then_some(before),
                reader: Reader::new(&self.layers, now),
                budget: &mut spent,
                problems: &mut found,
                tree: Delta::new(before),
                hidden: Vec::new(),
                visits: Vec::new(),
                listed: Vec::new(),
            };
            let walked = walk.run();
            let is_cheap = spent.hashed.saturating_sub(budget.hashed) <= CHEAP;
            if walked.moved && is_cheap && attempts < ATTEMPTS {
                attempts += 1;
                continue;
            }
            (*budget, *problems) = (spent, found);
            return walked;
        }
    }
}

/// How often an upper dir is walked that moves meanwhile.
const ATTEMPTS: usize = 3;
/// Bytes hashed by a walk that is made again.
const CHEAP: u64 = 256 << 20;

/// What a walk found.
pub(crate) struct Walked<'a> {
    pub(crate) tree: Delta<'a>,
    /// Whether directories changed meanwhile: what was moved from one that was
    /// still to be listed into one that was listed already is in neither.
    pub(crate) moved: bool,
}

const BLIND: &str = "the marks of the overlay (trusted.overlay.*) cannot be read without \
                     CAP_SYS_ADMIN: what was renamed, hidden or changed in part may be told wrong";

/// Whether this thread may read attributes under `trusted.`.
fn reads_trusted() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn open_upper(path: &Path, expected: Option<&DiskIdentity>) -> Result<OwnedFd, FsError> {
    let upper = open_root("upper", path)?;
    let stat = stat_fd(&upper).map_err(|errno| FsError::Layer {
        role: "upper",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    let other = |it: &&DiskIdentity| (it.inode.0, &it.device) != (stat.stx_ino, &device);
    match expected.filter(other) {
        None => Ok(upper),
        Some(expected) => Err(FsError::Replaced {
            path: path.to_owned(),
            device: expected.device.clone(),
            inode: expected.inode.0,
        }),
    }
}

fn open_root(role: &'static str, path: &Path) -> Result<OwnedFd, FsError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| FsError::Layer {
        role,
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// A directory still to be walked.
struct Visit {
    /// As the sandbox sees it.
    view: PathBytes,
    /// In the upper dir; `None` for one that only lower layers hold.
    upper: Option<Located>,
    /// The lower directories merged into it.
    below: Stack,
    /// Whether what only the lower layers hold belongs into the index too:
    /// below a redirected directory, where paths are not those of the layers.
    whole: bool,
    /// Its times when it was looked at, of one in the upper dir.
    stamp: Option<Stamp>,
    /// Whether empty files in it may be marked as whiteouts.
    marked_whiteouts: bool,
}

struct Walk<'a, 'w> {
    layers: &'a Layers,
    /// The index before, as far as it may be relied on.
    previous: Option<&'a Tree>,
    reader: Reader<'a>,
    budget: &'w mut Budget,
    problems: &'w mut Problems,
    tree: Delta<'a>,
    /// Directories of the lower layers that no longer show at their path.
    hidden: Vec<(PathBytes, Stack)>,
    visits: Vec<Visit>,
    /// Directories of the upper dir, with their times from before they were
    /// listed.
    listed: Vec<(Located, Stamp)>,
}

impl<'a> Walk<'a, '_> {
    fn run(mut self) -> Walked<'a> {
        self.walk();
        let layers = self.layers;
        let has_moved = |(at, before): &(Located, Stamp)| {
            let now = layers.open_path(at).and_then(|fd| stat_fd(&fd));
            now.map_or(true, |now| Stamp::of(&now) != *before)
        };
        Walked {
            moved: self.listed.iter().any(has_moved),
            tree: self.tree,
        }
    }

    fn walk(&mut self) {
        let root = Located {
            layer: 0,
            path: Box::default(),
        };
        let below = self.layers.roots_below(0);
        let mut stamp = None;
        match self.layers.open_path(&root) {
            Ok(fd) => match self.add_root(&root, &fd) {
                Ok(found) => stamp = Some(found),
                Err(reason) => self.skip((*b"/").into(), || reason),
            },
            Err(errno) => {
                let reason = format!("cannot open the upper dir: {errno}");
                return self.skip((*b"/").into(), || reason);
            }
        }
        let marks = self.layers.marks(&root).map_err(|reason| {
            self.skip((*b"/").into(), || reason);
        });
        self.visits.push(Visit {
            view: (*b"/").into(),
            upper: Some(root),
            below,
            whole: false,
            stamp,
            marked_whiteouts: marks.is_ok_and(|marks| marks.holds_marked_whiteouts),
        });
        while let Some(visit) = self.visits.pop() {
            if let Err(reason) = self.visit(&visit) {
                self.skip(visit.view, || reason);
            }
        }
        while let Some((view, stack)) = self.hidden.pop() {
            if let Err(reason) = self.hide_below(&view, &stack) {
                self.skip(view, || reason);
            }
        }
    }

    fn add_root(&mut self, at: &Located, fd: &OwnedFd) -> Result<Stamp, Failed> {
        let stat = stat_fd(fd).map_err(|errno| errno.to_string())?;
        let known = self.known(b"/").flatten();
        let entry = self
            .reader
            .directory(at, &stat, known.as_ref(), None, self.budget)?;
        self.tree.insert((*b"/").into(), Some(entry));
        Ok(Stamp::of(&stat))
    }

    fn visit(&mut self, visit: &Visit) -> Result<(), Failed> {
        let room = self.budget.max_paths.saturating_sub(self.tree.len());
        let mut names = Names::default();
        let mut upper_names = Names::default();
        let mut dir = None;
        if let Some(at) = &visit.upper {
            self.listed
                .extend(visit.stamp.map(|stamp| (at.clone(), stamp)));
            let fd = match self.layers.open_dir(at) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    // It went away since its parent was listed; the next scan
                    // tells what became of it.
                    self.tree.skipped().insert(visit.view.clone());
                    return Ok(());
                }
                Err(errno) => return Err(errno.to_string()),
            };
            upper_names
                .add(&fd, room)
                .map_err(|errno| errno.to_string())?;
            dir = Some((fd, at));
        }
        if visit.whole {
            names = self.layers.names(&visit.below, room)?;
        }
        if upper_names.cut || names.cut {
            self.bound(visit.view.clone());
        }
        if let Some((fd, at)) = &dir {
            for name in &upper_names.names {
                let in_upper = InUpper {
                    dir: fd,
                    at: at.child(name),
                    name,
                    marked_whiteouts: visit.marked_whiteouts,
                };
                self.upper_entry(visit, &in_upper);
            }
        }
        for name in names.names.difference(&upper_names.names) {
            self.lower_entry(visit, name);
        }
        Ok(())
    }

    fn upper_entry(&mut self, visit: &Visit, entry: &InUpper<'_>) {
        let view = join(&visit.view, entry.name);
        if !self.has_room(&visit.view, &view) {
            return;
        }
        if let Err(reason) = self.try_upper_entry(visit, entry, &view) {
            self.skip(visit.view.clone(), || format!("{}: {reason}", shown(&view)));
        }
    }

    fn try_upper_entry(
        &mut self,
        visit: &Visit,
        entry: &InUpper<'_>,
        view: &PathBytes,
    ) -> Result<(), Failed> {
        // Nothing if it went away since the directory was listed.
        let Some(stat) = entry.stat()? else {
            return Ok(());
        };
        if entry.is_whiteout(self.layers, &stat)? {
            return self.add_whiteout(visit, entry.name, view);
        }
        if is_dir(&stat) {
            return self.upper_directory(visit, entry, &stat, view);
        }
        let known = self.known(view).flatten();
        let below = &visit.below;
        let file = self
            .reader
            .upper_file(&entry.at, &stat, known.as_ref(), below, self.budget);
        let file = match file {
            Err(_) if entry.stat()?.is_none() => return Ok(()),
            file => file?,
        };
        if matches!(file.content, Content::Unreadable(_)) && entry.stat()?.is_none() {
            return Ok(());
        }
        self.tree.insert(view.clone(), Some(file));
        let lower = (below.as_slice(), entry.name);
        let others = self.layers.names_below_alone(&entry.at, &stat, lower)?;
        if others > 0 {
            self.problems.bounded(|| {
                let view = shown(view);
                format!("{view}: it has {others} more names in the lower layers that show the same")
            });
        }
        self.hide_lower_directory(visit, entry.name, view)
    }

    /// A whiteout in the upper dir: hides what the lower layers have there.
    fn add_whiteout(&mut self, visit: &Visit, name: &[u8], view: &PathBytes) -> Result<(), Failed> {
        if visit.whole {
            // What it hides is not at this path in the lower layers.
            return Ok(());
        }
        if !matches!(self.known(view), Some(None))
            && self.layers.child(&visit.below, name)?.is_none()
        {
            return Ok(());
        }
        self.tree.insert(view.clone(), None);
        self.hide_lower_directory(visit, name, view)
    }

    /// Something that is no directory shows at `view`: if the lower layers
    /// have a directory there, all below it is hidden.
    fn hide_lower_directory(
        &mut self,
        visit: &Visit,
        name: &[u8],
        view: &PathBytes,
    ) -> Result<(), Failed> {
        if visit.whole || visit.below.is_empty() {
            return Ok(());
        }
        let is_known = match self.known(view) {
            Some(None) => true,
            Some(Some(entry)) => entry.kind != sandtrace_event::FileKind::Dir,
            None => false,
        };
        let previous = self.previous.filter(|tree| tree.skipped.is_empty());
        if let Some(previous) = previous.filter(|_| is_known) {
            // The lower layers do not change: the last scan's answer holds.
            let hidden = previous.below(view).filter(|(_, node)| node.is_none());
            for (path, node) in hidden {
                self.tree.insert(path, node);
            }
            return Ok(());
        }
        if let Some(Found {
            dir: Some(stack), ..
        }) = self.layers.child(&visit.below, name)?
        {
            self.hidden.push((view.clone(), stack));
        }
        Ok(())
    }

    fn upper_directory(
        &mut self,
        visit: &Visit,
        entry: &InUpper<'_>,
        stat: &Statx,
        view: &PathBytes,
    ) -> Result<(), Failed> {
        let marks = self.layers.marks(&entry.at)?;
        let plain = self.layers.child(&visit.below, entry.name)?;
        let plain = plain.and_then(|found| found.dir).unwrap_or_default();
        let redirected = match (&marks.redirect, marks.opaque) {
            (Some(target), false) => self.redirected(visit, target)?,
            _ => None,
        };
        let origin = redirected.as_ref().and_then(|stack| stack.first());
        let known = self.known(view).flatten();
        let directory =
            self.reader
                .directory(&entry.at, stat, known.as_ref(), origin, self.budget)?;
        self.tree.insert(view.clone(), Some(directory));
        let elsewhere = marks.opaque || redirected.is_some();
        if elsewhere && !visit.whole && !plain.is_empty() {
            self.hidden.push((view.clone(), plain.clone()));
        }
        self.visits.push(Visit {
            view: view.clone(),
            upper: Some(entry.at.clone()),
            whole: visit.whole || redirected.is_some(),
            stamp: Some(Stamp::of(stat)),
            marked_whiteouts: marks.holds_marked_whiteouts,
            below: match redirected {
                Some(stack) => stack,
                None if marks.opaque => Stack::new(),
                None => plain,
            },
        });
        Ok(())
    }

    /// The lower directories that a redirect names.
    fn redirected(&self, visit: &Visit, target: &Target) -> Result<Option<Stack>, Failed> {
        let stack = match target {
            Target::Name(_) => visit.below.clone(),
            Target::Absolute(_) => self.layers.roots_below(0),
        };
        let found = self.layers.find(stack, target.clone())?;
        Ok(found.and_then(|found| found.dir))
    }

    /// A name that only the lower layers hold, below a redirected directory.
    fn lower_entry(&mut self, visit: &Visit, name: &[u8]) {
        let view = join(&visit.view, name);
        if !self.has_room(&visit.view, &view) {
            return;
        }
        let found = self.layers.child(&visit.below, name);
        let found = found.and_then(|found| {
            let read = |found: Found| {
                let entry = self.reader.lower_entry(&found, &visit.below, self.budget)?;
                Ok((found, entry))
            };
            found.map(read).transpose()
        });
        match found {
            Ok(None) => {}
            Ok(Some((found, entry))) => {
                self.tree.insert(view.clone(), Some(entry));
                if let Some(below) = found.dir {
                    self.visits.push(Visit {
                        view,
                        upper: None,
                        below,
                        whole: true,
                        stamp: None,
                        marked_whiteouts: false,
                    });
                }
            }
            Err(reason) => self.skip(visit.view.clone(), || reason),
        }
    }

    /// Notes everything below a lower directory as hidden, save what the
    /// index already holds.
    fn hide_below(&mut self, view: &PathBytes, stack: &[Located]) -> Result<(), Failed> {
        let room = self.budget.max_paths.saturating_sub(self.tree.len());
        let names = self.layers.names(stack, room)?;
        if names.cut {
            self.bound(view.clone());
        }
        for name in &names.names {
            let path = join(view, name);
            if !self.has_room(view, &path) {
                break;
            }
            let Some(found) = self.layers.child(stack, name)? else {
                continue;
            };
            if !self.tree.contains(&path) {
                self.tree.insert(path.clone(), None);
            }
            if let Some(dir) = found.dir {
                self.hidden.push((path, dir));
            }
        }
        Ok(())
    }

    /// What the index before says of a path.
    fn known(&self, view: &[u8]) -> Option<Node> {
        self.previous?.get(view)
    }

    fn has_room(&mut self, dir: &PathBytes, path: &PathBytes) -> bool {
        let fits = self.tree.has_room(path, self.budget.max_paths);
        if !fits {
            self.bound(dir.clone());
        }
        fits
    }

    fn skip(&mut self, dir: PathBytes, reason: impl FnOnce() -> String) {
        self.problems
            .unreadable(|| format!("{}: {}", shown(&dir), reason()));
        self.tree.skipped().insert(dir);
    }

    fn bound(&mut self, dir: PathBytes) {
        self.problems
            .bounded(|| format!("below {}: too many or too long paths", shown(&dir)));
        self.tree.skipped().insert(dir);
    }
}

/// An entry of a directory of the upper dir.
struct InUpper<'a> {
    dir: &'a OwnedFd,
    at: Located,
    name: &'a [u8],
    marked_whiteouts: bool,
}

impl InUpper<'_> {
    /// `None` if there is no such entry (any more).
    fn stat(&self) -> Result<Option<Statx>, Failed> {
        match rustix::fs::statx(self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW, STAT) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.to_string()),
        }
    }

    fn is_whiteout(&self, layers: &Layers, stat: &Statx) -> Result<bool, Failed> {
        if layers.is_device_whiteout(stat) {
            return Ok(true);
        }
        if !self.marked_whiteouts {
            return Ok(false);
        }
        match layers.open_path(&self.at) {
            Ok(fd) => layers.is_whiteout(&self.at, &fd, stat),
            Err(errno) => Err(errno.to_string()),
        }
    }
}
