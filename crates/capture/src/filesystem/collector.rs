//! Scans of one disk, each compared with the one before.

use super::bounds::{Budget, Problems};
use super::config::{Baseline, FsConfig, FsError, OverlayXattrs, Source};
use super::content::Content;
use super::diff::{Nothing, diff};
use super::image::Image;
use super::overlay::Overlay;
use super::record::Frame;
use super::tree::{Tree, shown};
use sandtrace_event::{ChangeSource, Count, DiskIdentity, Observation, QuiesceMethod, Timestamp};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What a scan did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// `filesystem_change` records emitted.
    pub changes: u64,
    /// `capture_gap` records emitted.
    pub gaps: u64,
    /// Bytes of content hashed.
    pub hashed_bytes: u64,
    /// Whether an image changed while it was read: what the records say may
    /// mix two moments.
    pub moved: bool,
    /// Paths in the index after the scan.
    pub paths: u64,
}

/// Watches one disk of a sandbox.
#[derive(Debug)]
pub struct FsCollector {
    config: FsConfig,
    disk: Disk,
    identity: DiskIdentity,
    /// The last scan's index; `None` while no scan could read the image.
    tree: Option<Tree>,
    /// What the baseline could not see: reported by the first scan.
    baseline_problems: Option<Problems>,
    /// What the last scan could not see.
    known_problems: Problems,
    last_scan: Option<Timestamp>,
}

#[derive(Debug)]
enum Disk {
    Overlay(Overlay),
    Directory(Overlay),
    Image(Image),
}

impl Disk {
    fn open(source: Source, config: &FsConfig) -> Result<(Self, DiskIdentity), FsError> {
        let named = |path: PathBuf, role, kind| {
            let identity = identity(&path, kind);
            identity.map_err(|source| FsError::Layer { role, path, source })
        };
        Ok(match source {
            Source::Overlay { upper, lowers } => {
                let overlay = Overlay::open(&upper, &lowers, config.overlay_xattrs)?;
                (Self::Overlay(overlay), named(upper, "upper", "overlay")?)
            }
            Source::Directory { path } => {
                let directory = Overlay::open(&path, &[] as &[&Path], OverlayXattrs::Ignored)?;
                (
                    Self::Directory(directory),
                    named(path, "root", "directory")?,
                )
            }
            Source::Image { path } => {
                let image = Image::open(&path)?;
                let identity =
                    identity(&path, "ext4").map_err(|source| FsError::Image { path, source })?;
                (Self::Image(image), identity)
            }
        })
    }
}

/// What one walk saw.
struct Walked {
    tree: Option<Tree>,
    problems: Problems,
    budget: Budget,
    moved: bool,
}

impl FsCollector {
    /// Opens the disk and takes the baseline.
    ///
    /// An image that can be opened but not understood is no error: the first
    /// scan reports it as a gap.
    pub fn attach(source: Source, config: FsConfig) -> Result<Self, FsError> {
        let (disk, identity) = Disk::open(source, &config)?;
        let mut collector = Self {
            config,
            disk,
            identity,
            tree: None,
            baseline_problems: None,
            known_problems: Problems::default(),
            last_scan: None,
        };
        collector.take_baseline()?;
        Ok(collector)
    }

    fn take_baseline(&mut self) -> Result<(), FsError> {
        let walked = match (&self.config.baseline, &self.disk) {
            (Baseline::Lowers, Disk::Overlay(_)) => {
                self.tree = Some(Tree::default());
                return Ok(());
            }
            (Baseline::Of(source), _) => {
                let (base, _) = Disk::open(source.clone(), &self.config)?;
                self.walk(&base, None, QuiesceMethod::Detached)
            }
            _ => self.walk(&self.disk, None, QuiesceMethod::Live),
        };
        self.tree = walked.tree;
        self.baseline_problems = Some(walked.problems);
        Ok(())
    }

    /// The disk, as `sandbox_attached` names it.
    #[must_use]
    pub fn identity(&self) -> DiskIdentity {
        self.identity.clone()
    }

    /// Reads the disk and hands every change since the last scan (or the
    /// baseline) to `sink`, in the order of paths, then what could not be seen.
    ///
    /// `quiesce` says whether the sandbox may write meanwhile. A detached
    /// overlay is read anew in full: while a program has a file mapped, its
    /// writes need not show in any time stamp.
    pub fn scan(
        &mut self,
        at: Timestamp,
        quiesce: QuiesceMethod,
        sink: &mut dyn FnMut(Observation),
    ) -> Result<ScanSummary, FsError> {
        let frame = self.frame(at, quiesce);
        let mut walked = self.walk(&self.disk, Some(at), quiesce);
        let mut changes = 0;
        match (walked.tree.take(), self.tree.take()) {
            (Some(mut tree), Some(before)) => {
                changes = self.report(&before, &mut tree, &mut walked, &frame, sink);
                self.tree = Some(tree);
            }
            // The first readable state is the baseline; an unreadable one is none.
            (tree, before) => self.tree = tree.or(before),
        }
        let gaps = self.report_gaps(&walked.problems, &frame, sink);
        self.last_scan = Some(at);
        Ok(ScanSummary {
            changes,
            gaps,
            hashed_bytes: walked.budget.hashed,
            moved: walked.moved,
            paths: self.tree.as_ref().map_or(0, |tree| tree.nodes.len() as u64),
        })
    }

    fn report(
        &self,
        before: &Tree,
        after: &mut Tree,
        walked: &mut Walked,
        frame: &Frame,
        sink: &mut dyn FnMut(Observation),
    ) -> u64 {
        let Walked {
            problems, budget, ..
        } = walked;
        let max_paths = self.config.max_paths;
        let changes = match &self.disk {
            Disk::Overlay(overlay) | Disk::Directory(overlay) => diff(
                before,
                after,
                max_paths,
                &mut overlay.base(budget),
                problems,
            ),
            Disk::Image(_) => diff(before, after, max_paths, &mut Nothing, problems),
        };
        let mut emitted = 0;
        for change in &changes {
            if emitted >= max_paths as u64 {
                problems
                    .unreported(|| format!("from {} on: too many changes", shown(&change.path)));
                continue;
            }
            emitted += 1;
            sink(frame.observe(frame.change(change)));
        }
        emitted
    }

    /// A gap that stays the same is said once.
    fn report_gaps(
        &mut self,
        problems: &Problems,
        frame: &Frame,
        sink: &mut dyn FnMut(Observation),
    ) -> u64 {
        let mut emitted = 0;
        let baseline = std::mem::take(&mut self.baseline_problems);
        for problems in [baseline.as_ref(), Some(problems)].into_iter().flatten() {
            if *problems == self.known_problems {
                continue;
            }
            self.known_problems = problems.clone();
            for gap in frame.gaps(problems) {
                emitted += 1;
                sink(frame.observe(gap));
            }
        }
        emitted
    }

    fn walk(&self, disk: &Disk, at: Option<Timestamp>, quiesce: QuiesceMethod) -> Walked {
        let nothing = Tree::default();
        let mut budget = Budget::new(&self.config);
        let mut problems = Problems::default();
        let (tree, moved) = match disk {
            Disk::Overlay(overlay) | Disk::Directory(overlay) => {
                let previous = match quiesce {
                    QuiesceMethod::Detached => &nothing,
                    _ => self.tree.as_ref().unwrap_or(&nothing),
                };
                let now = at.map(|at| i64::try_from(at.wall.0).unwrap_or(i64::MAX));
                let tree = overlay.walk(previous, now, &mut budget, &mut problems);
                (Some(tree), false)
            }
            Disk::Image(image) => image.walk(&mut budget, &mut problems),
        };
        if let Some(tree) = &tree {
            let is_skipped = |entry: &&super::tree::Entry| entry.content == Content::Skipped;
            for _ in tree.nodes.values().flatten().filter(is_skipped) {
                problems.bounded(|| "bound on hashing reached".to_owned());
            }
        }
        Walked {
            tree,
            problems,
            budget,
            moved,
        }
    }

    fn frame(&self, at: Timestamp, quiesce: QuiesceMethod) -> Frame {
        let (disk, source) = match self.disk {
            Disk::Overlay(_) => (None, ChangeSource::Overlay),
            Disk::Directory(_) => (None, ChangeSource::Directory),
            Disk::Image(_) => (Some(self.identity.path.clone()), ChangeSource::Block),
        };
        Frame {
            disk,
            source,
            name: self.identity.path.clone(),
            quiesce,
            since: self.last_scan.unwrap_or(at),
            at,
        }
    }
}

/// A block device is known by its own number, anything else by the file system
/// that holds it.
fn identity(path: &Path, kind: &str) -> std::io::Result<DiskIdentity> {
    let metadata = path.metadata()?;
    let device = match metadata.file_type().is_block_device() {
        true => metadata.rdev(),
        false => metadata.dev(),
    };
    Ok(DiskIdentity {
        device: format!(
            "{}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device)
        ),
        inode: Count(metadata.ino()),
        path: path.display().to_string(),
        kind: kind.to_owned(),
    })
}
