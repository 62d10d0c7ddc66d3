//! Scans of one disk, each compared with the one before.

mod base;
mod disk;
mod evidence;
mod view;

use super::bounds::Budget;
use super::config::{Baseline, FsConfig, FsError, Source};
use super::image::{Moment, parts};
use super::record::Frame;
use disk::Disk;
use sandtrace_event::{ChangeSource, DiskIdentity, Observation, QuiesceMethod, Timestamp};
use std::hash::RandomState;
use view::{Scan, View};

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

impl ScanSummary {
    fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.gaps += other.gaps;
        self.hashed_bytes += other.hashed_bytes;
        self.moved |= other.moved;
        self.paths += other.paths;
    }
}

/// Watches one disk of a sandbox.
#[derive(Debug)]
pub struct FsCollector {
    config: FsConfig,
    disk: Disk,
    identity: DiskIdentity,
    /// One for an overlay or a directory; of an image one for each file system.
    views: Vec<View>,
    /// Key of the marks of places in images.
    key: RandomState,
    last_scan: Option<Timestamp>,
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
            views: Vec::new(),
            key: RandomState::new(),
            last_scan: None,
        };
        collector.take_baseline()?;
        Ok(collector)
    }

    fn take_baseline(&mut self) -> Result<(), FsError> {
        match (self.config.baseline.clone(), &mut self.disk) {
            (Baseline::Of(source), _) => return self.compare_with(source),
            (Baseline::Lowers, Disk::Overlay(_)) => self.views.push(View::empty()),
            (_, Disk::Overlay(layers) | Disk::Directory(layers)) => {
                self.views.push(View::of_layers(layers, &self.config));
            }
            (_, Disk::Image(image)) => {
                let moment = image.first(None);
                let lazy = moment.is_frozen;
                let mut budget = Budget::new(&self.config);
                for part in parts(&moment.disk) {
                    let view = View::of_part(&part, lazy, &self.key, &mut budget);
                    self.views.push(view);
                }
                image.settle(moment);
            }
        }
        Ok(())
    }

    /// Takes something else for what was there before.
    fn compare_with(&mut self, source: Source) -> Result<(), FsError> {
        let config = FsConfig {
            expected: None,
            ..self.config.clone()
        };
        let (base, _) = Disk::open(source, &config)?;
        match base {
            Disk::Overlay(layers) | Disk::Directory(layers) => {
                self.views
                    .push(View::of_other_layers(&layers, &self.config));
            }
            Disk::Image(base) => {
                let disk = base.into_disk();
                let lazy = matches!(self.disk, Disk::Image(_));
                let mut budget = Budget::new(&self.config);
                for part in parts(&disk) {
                    let view = View::of_part(&part, lazy, &self.key, &mut budget);
                    self.views.push(view);
                }
                self.disk.compare_with(disk);
            }
        }
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
    /// disk is read anew in full: while a program has a file mapped, its
    /// writes need not show in any time stamp.
    pub fn scan(
        &mut self,
        at: Timestamp,
        quiesce: QuiesceMethod,
        sink: &mut dyn FnMut(Observation),
    ) -> Result<ScanSummary, FsError> {
        let now = i64::try_from(at.wall.0).unwrap_or(i64::MAX);
        let is_last = quiesce == QuiesceMethod::Detached;
        let mut frame = Frame {
            disk: None,
            source: match self.disk {
                Disk::Overlay(_) => ChangeSource::Overlay,
                Disk::Directory(_) => ChangeSource::Directory,
                Disk::Image(_) => ChangeSource::Block,
            },
            name: self.identity.path.clone(),
            quiesce,
            since: self.last_scan.unwrap_or(at),
            at,
        };
        let mut summary = ScanSummary::default();
        match &mut self.disk {
            Disk::Overlay(layers) | Disk::Directory(layers) => {
                let mut budget = Budget::new(&self.config).look_for_secrets(&self.config);
                for view in &mut self.views {
                    let mut scan = Scan::new(&frame, &self.config, &mut budget, sink);
                    view.scan_layers(layers, is_last, now, &mut scan);
                    summary.add(&scan.summary);
                }
            }
            Disk::Image(image) => {
                let moment = image.next(is_last, now);
                if moment.is_frozen && !is_last {
                    frame.quiesce = QuiesceMethod::Snapshot;
                }
                summary = self.scan_image(&moment, &frame, sink);
                let is_behind = self.views.iter().any(|view| view.is_behind);
                if let Disk::Image(image) = &mut self.disk
                    && !is_behind
                {
                    image.settle(moment);
                }
            }
        }
        self.last_scan = Some(at);
        Ok(summary)
    }

    fn scan_image(
        &mut self,
        moment: &Moment,
        frame: &Frame,
        sink: &mut dyn FnMut(Observation),
    ) -> ScanSummary {
        let mut summary = ScanSummary::default();
        let base = match &self.disk {
            Disk::Image(image) => image.base(),
            _ => None,
        };
        let mut found = match moment.is_idle() {
            true => Vec::new(),
            false => parts(&moment.disk),
        };
        let mut budget = Budget::new(&self.config).look_for_secrets(&self.config);
        for view in &self.views {
            // What is gone is kept: it may come back.
            if !found.iter().any(|part| view.is_of(&part.id)) {
                budget.take_paths(view.paths());
            }
        }
        for view in &mut self.views {
            let place = found.iter().position(|part| view.is_of(&part.id));
            let frame = view.frame(frame, &self.identity.path);
            let mut scan = Scan::new(&frame, &self.config, &mut budget, sink);
            match place.map(|place| found.swap_remove(place)) {
                Some(part) => view.scan_part(&part, base, moment, &self.key, &mut scan),
                None if moment.is_idle() => view.report_idle(&mut scan),
                None => view.report_gone(&mut scan),
            }
            summary.add(&scan.summary);
        }
        // What a partition holds that was not there before is all new.
        found.sort_by_key(|part| part.id.number);
        for part in found {
            let mut view = View::new_part(part.id);
            let frame = view.frame(frame, &self.identity.path);
            let mut scan = Scan::new(&frame, &self.config, &mut budget, sink);
            view.scan_part(&part, base, moment, &self.key, &mut scan);
            summary.add(&scan.summary);
            self.views.push(view);
        }
        summary
    }
}
