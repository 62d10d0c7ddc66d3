//! One file system under watch: its index, and what it could not see.

use super::super::bounds::{Budget, Problems};
use super::super::config::FsConfig;
use super::super::diff::{Base, diff};
use super::super::disk::{Blocks, Window};
use super::super::ext4::Volume;
use super::super::image::{Moment, Old, Part, PartId, ReadPart, walk};
use super::super::overlay::Overlay;
use super::super::record::Frame;
use super::super::secrets::Findings;
use super::super::tree::{Delta, Step, Tree, shown};
use super::ScanSummary;
use super::base::Copy;
use super::evidence::evidence;
use sandtrace_event::{Observation, QuiesceMethod};
use std::collections::BTreeSet;
use std::hash::RandomState;
use std::sync::Arc;

/// One file system under watch.
#[derive(Debug)]
pub(super) struct View {
    /// `None`: not in an image.
    part: Option<PartId>,
    /// The last scan's index; `None` while no scan could read it.
    tree: Option<Tree>,
    /// Blocks that came from the journal at the last scan.
    journaled: BTreeSet<u64>,
    /// The index is of other directories than those under watch.
    is_foreign: bool,
    /// The baseline was taken while its disk was written to, and no scan has
    /// told of it yet.
    has_moved: bool,
    /// The last scan did not see all that is in the index: what was written
    /// then counts as written still.
    pub(super) is_behind: bool,
    /// What the baseline could not see: reported by the first scan.
    baseline_problems: Option<Problems>,
    /// What the last scan could not see.
    known_problems: Problems,
}

/// One scan of one file system.
pub(super) struct Scan<'a> {
    frame: &'a Frame,
    config: &'a FsConfig,
    /// Of the whole disk.
    budget: &'a mut Budget,
    sink: &'a mut dyn FnMut(Observation),
    pub(super) summary: ScanSummary,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        frame: &'a Frame,
        config: &'a FsConfig,
        budget: &'a mut Budget,
        sink: &'a mut dyn FnMut(Observation),
    ) -> Self {
        Self {
            frame,
            config,
            budget,
            sink,
            summary: ScanSummary::default(),
        }
    }

    /// Reports how what was found differs from the index before.
    fn report_changes<'b>(
        &'b mut self,
        found: &mut Delta<'_>,
        base: impl FnOnce(&'b mut Budget) -> Box<dyn Base + 'b>,
        problems: &mut Problems,
    ) {
        let max_records = self.config.max_paths as u64;
        let mut frame = self.frame.clone();
        if self.summary.moved {
            frame.quiesce = QuiesceMethod::Moving;
        }
        let max_paths = self.budget.max_paths;
        let mut base = base(self.budget);
        let (sink, count) = (&mut *self.sink, &mut self.summary.changes);
        let nothing = Findings::default();
        diff(
            found,
            max_paths,
            &mut *base,
            problems,
            &mut |change, secrets, problems| {
                if *count >= max_records {
                    let first = || format!("from {} on: too many changes", shown(&change.path));
                    return problems.unreported(first);
                }
                *count += 1;
                let change = frame.change(change, secrets.unwrap_or(&nothing));
                sink(frame.observe(change));
            },
        );
    }
}

impl View {
    /// Nothing is there yet.
    pub(super) fn empty() -> Self {
        Self {
            part: None,
            tree: Some(Tree::default()),
            journaled: BTreeSet::new(),
            is_foreign: false,
            has_moved: false,
            is_behind: false,
            baseline_problems: None,
            known_problems: Problems::default(),
        }
    }

    /// Nothing is there yet, in a part of a disk that has just appeared.
    pub(super) fn new_part(part: PartId) -> Self {
        Self {
            part: Some(part),
            ..Self::empty()
        }
    }

    /// As the layers are now.
    pub(super) fn of_layers(layers: &Overlay, config: &FsConfig) -> Self {
        let mut budget = Budget::new(config);
        let mut problems = Problems::default();
        let nothing = Tree::default();
        let walked = layers.walk(&nothing, (true, None), &mut budget, &mut problems);
        problems.count_unread(&mut budget);
        let mut view = Self::empty();
        view.has_moved = walked.moved;
        view.tree = Some(Tree::of(walked.tree.step()));
        view.baseline_problems = Some(problems);
        view
    }

    /// As other layers are now.
    pub(super) fn of_other_layers(layers: &Overlay, config: &FsConfig) -> Self {
        Self {
            is_foreign: true,
            ..Self::of_layers(layers, config)
        }
    }

    /// As a part of a disk is now.
    pub(super) fn of_part(part: &Part, lazy: bool, key: &RandomState, budget: &mut Budget) -> Self {
        if part.is_crowded {
            return Self {
                tree: None,
                baseline_problems: Some(crowded()),
                ..Self::new_part(part.id)
            };
        }
        let mut problems = Problems::default();
        let nothing = Tree::default();
        let journaled = BTreeSet::new();
        let old = Old {
            tree: &nothing,
            changed: None,
            journaled: &journaled,
            key,
            lazy,
        };
        let held = budget.hold_back(part.disk.size());
        let read = walk(&*part.disk, old, budget, &mut problems);
        problems.count_unread(budget);
        budget.give_back(&held);
        budget.take_paths(read.tree.as_ref().map_or(0, Delta::len));
        Self {
            tree: read.tree.map(|found| Tree::of(found.step())),
            journaled: read.journaled,
            has_moved: read.moved,
            baseline_problems: Some(problems),
            ..Self::new_part(part.id)
        }
    }

    pub(super) fn is_of(&self, part: &PartId) -> bool {
        self.part.is_none_or(|own| own.number == part.number)
    }

    /// What this file system's records share; `path`: the image.
    pub(super) fn frame(&self, frame: &Frame, path: &str) -> Frame {
        let disk = match self.part {
            Some(PartId { number, .. }) if number > 0 => format!("{path}#{number}"),
            _ => path.to_owned(),
        };
        Frame {
            disk: Some(disk.clone()),
            name: disk,
            ..frame.clone()
        }
    }

    /// Reads layers and reports.
    pub(super) fn scan_layers(
        &mut self,
        layers: &Overlay,
        afresh: bool,
        now: i64,
        scan: &mut Scan<'_>,
    ) {
        let mut problems = Problems::default();
        let before = self.tree.take();
        let nothing = Tree::default();
        let known = before.as_ref().unwrap_or(&nothing);
        let clock = (afresh, Some(now));
        let walked = layers.walk(known, clock, scan.budget, &mut problems);
        let mut found = walked.tree;
        scan.summary.moved |= walked.moved | std::mem::take(&mut self.has_moved);
        if before.is_some() {
            let is_foreign = std::mem::take(&mut self.is_foreign);
            let base = |budget| Box::new(layers.base(is_foreign, budget)) as Box<dyn Base>;
            scan.report_changes(&mut found, base, &mut problems);
        }
        let step = found.step();
        self.end(before, Some(step), &mut problems, scan);
    }

    /// Reads a part of a disk and reports. `base`: the disk as it was.
    pub(super) fn scan_part(
        &mut self,
        part: &Part,
        base: Option<&Arc<dyn Blocks>>,
        moment: &Moment,
        key: &RandomState,
        scan: &mut Scan<'_>,
    ) {
        if part.is_crowded {
            return self.report(&crowded(), scan);
        }
        let mut problems = Problems::default();
        let held = scan.budget.hold_back(part.disk.size());
        let before = self.tree.take();
        let journaled_before = std::mem::take(&mut self.journaled);
        let nothing = Tree::default();
        let is_same_place = self.part.is_some_and(|own| own == part.id);
        let changed = moment.changed.as_ref().filter(|_| is_same_place);
        let changed = changed.map(|ranges| ranges.within(part.id.start, part.id.len));
        let old = Old {
            tree: before.as_ref().unwrap_or(&nothing),
            changed: changed.as_ref(),
            journaled: &journaled_before,
            key,
            lazy: moment.is_frozen && before.is_none(),
        };
        let ReadPart {
            mut tree,
            moved,
            journaled,
        } = walk(&*part.disk, old, scan.budget, &mut problems);
        scan.summary.moved |= moved | std::mem::take(&mut self.has_moved);
        if let (Some(_), Some(found)) = (&before, &mut tree) {
            let window = base.map(|base| Window::of(base, self.part.unwrap_or(part.id)));
            let volume = window.as_ref().map(|window| Volume::open(window));
            let volume = volume.and_then(Result::ok);
            let copy = |budget| Box::new(Copy { volume, budget }) as Box<dyn Base>;
            scan.report_changes(found, copy, &mut problems);
        }
        match (&tree, &changed) {
            (None, Some(ranges)) if ranges.is_empty() => problems = self.last_problems(),
            (None, Some(ranges)) => {
                problems.note(&evidence(&*part.disk, ranges, scan.config.hash_bound));
            }
            _ => {}
        }
        if moved && problems.unreadable.count > 0 {
            problems.note("the guest was writing meanwhile");
        }
        self.is_behind = before.is_some() && tree.as_ref().is_none_or(Delta::is_partial);
        self.journaled = match self.is_behind {
            true => &journaled_before | &journaled,
            false => journaled,
        };
        self.part = self.part.map(|_| part.id);
        let step = tree.map(Delta::step);
        scan.budget.give_back(&held);
        self.end(before, step, &mut problems, scan);
    }

    /// Nothing was written: only what the baseline could not see is news.
    pub(super) fn report_idle(&mut self, scan: &mut Scan<'_>) {
        self.report(&self.last_problems(), scan);
    }

    /// What could not be seen when it was last looked at.
    fn last_problems(&self) -> Problems {
        let baseline = self.baseline_problems.as_ref();
        baseline.unwrap_or(&self.known_problems).clone()
    }

    /// The part is no longer there.
    pub(super) fn report_gone(&mut self, scan: &mut Scan<'_>) {
        let mut problems = Problems::default();
        problems.unreadable(|| "the partition is no longer there".to_owned());
        self.report(&problems, scan);
    }

    /// What of the index before stays as it is.
    fn report(&mut self, problems: &Problems, scan: &mut Scan<'_>) {
        self.report_gaps(problems, scan);
        scan.summary.paths = self.paths() as u64;
    }

    /// Paths in the index.
    pub(super) fn paths(&self) -> usize {
        self.tree.as_ref().map_or(0, Tree::len)
    }

    fn end(
        &mut self,
        before: Option<Tree>,
        step: Option<Step>,
        problems: &mut Problems,
        scan: &mut Scan<'_>,
    ) {
        problems.count_unread(scan.budget);
        // The first readable state is the baseline; an unreadable one is none.
        self.tree = match (before, step) {
            (Some(mut tree), Some(step)) => {
                tree.advance(step);
                Some(tree)
            }
            (None, Some(step)) => Some(Tree::of(step)),
            (before, None) => before,
        };
        scan.budget.take_paths(self.paths());
        self.report(problems, scan);
        scan.summary.hashed_bytes = std::mem::take(&mut scan.budget.hashed);
    }

    /// A gap that stays the same is said once.
    fn report_gaps(&mut self, problems: &Problems, scan: &mut Scan<'_>) {
        let baseline = self.baseline_problems.take();
        // With no scan between, the baseline's are what is known.
        for problems in [baseline.as_ref(), Some(problems)].into_iter().flatten() {
            if *problems == self.known_problems {
                continue;
            }
            self.known_problems = problems.clone();
            for gap in scan.frame.gaps(problems) {
                scan.summary.gaps += 1;
                (scan.sink)(scan.frame.observe(gap));
            }
        }
    }
}

fn crowded() -> Problems {
    let mut problems = Problems::default();
    problems.unreadable(|| {
        "the partition is not read: others of the same bytes are already".to_owned()
    });
    problems
}
