//! A disk from scan to scan: which of its bytes were written in between.
//!
//! In the order of what it costs: nothing is read where the image file's own
//! times, or what the kernel counts of a device, say that nobody wrote; a reflink copy of the image, where its file
//! system makes them, is compared by extents; else every piece of the disk is
//! summed.

use super::super::config::{FsError, ImageFormat};
use super::super::disk::{Blocks, Noted, Ranges, Stamp, Sums, changed, open};
use sandtrace_event::DiskIdentity;
use std::path::Path;
use std::sync::Arc;

/// No clock of a file system is coarser, in nanoseconds.
const CLOCK_SLACK: i64 = 1_000_000_000;

/// An image under watch.
#[derive(Debug)]
pub(crate) struct Image {
    disk: Arc<dyn Blocks>,
    kept: Kept,
    /// A state of the disk that [`Content::InBase`] is read from.
    ///
    /// [`Content::InBase`]: super::super::content::Content::InBase
    base: Option<Arc<dyn Blocks>>,
    /// When the disk was last written to, if it can no longer change without
    /// this changing.
    stamp: Option<Stamp>,
}

/// What is kept of the disk as it was at the last scan.
#[derive(Debug)]
enum Kept {
    /// Nothing yet.
    Nothing,
    /// The base is that: a given image, which stays as it is.
    Base,
    /// The base is that: a reflink copy, which the next one replaces.
    Copy,
    Sums(Arc<Sums>),
    /// What was kept before: nothing was written.
    AsItWas,
}

/// The disk as one scan reads it.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) disk: Arc<dyn Blocks>,
    /// Bytes that differ from those at the last scan; `None`: it is not known.
    pub(crate) changed: Option<Ranges>,
    /// Nobody can write to what is read.
    pub(crate) is_frozen: bool,
    kept: Kept,
    stamp: Option<Stamp>,
}

impl Image {
    pub(crate) fn open(
        path: &Path,
        format: ImageFormat,
        expected: Option<&DiskIdentity>,
    ) -> Result<Self, FsError> {
        Ok(Self::of(open(path, format, expected)?))
    }

    pub(crate) fn of(disk: Arc<dyn Blocks>) -> Self {
        Self {
            disk,
            kept: Kept::Nothing,
            base: None,
            stamp: None,
        }
    }

    pub(crate) fn into_disk(self) -> Arc<dyn Blocks> {
        self.disk
    }

    /// The disk as it was: what is only pointed at is read from here.
    pub(crate) fn base(&self) -> Option<&Arc<dyn Blocks>> {
        self.base.as_ref()
    }

    /// The disk as it is, to be compared with from now on.
    pub(crate) fn first(&self, now: Option<i64>) -> Moment {
        let stamp = settled(self.disk.stamp(), now);
        if let Some(copy) = self.disk.copy() {
            return Moment {
                disk: copy,
                changed: None,
                is_frozen: true,
                kept: Kept::Copy,
                stamp,
            };
        }
        self.disk.drop_cached();
        // Summed before it is read: what is written meanwhile shows later.
        self.live(None, self.summed(None, now), stamp)
    }

    /// Another image is what the first scan is compared with.
    pub(crate) fn compare_with(&mut self, base: Arc<dyn Blocks>) {
        self.base = Some(base);
        self.kept = Kept::Base;
    }

    /// The disk as it is, and what was written since the last scan. `last`:
    /// every byte is looked at, and there will be no other scan. `now`: the
    /// wall clock in nanoseconds.
    pub(crate) fn next(&mut self, last: bool, now: i64) -> Moment {
        if let Ok(disk) = self.disk.again() {
            self.disk = disk;
        }
        let stamp = self.disk.stamp();
        let is_idle = !last && stamp.is_some() && stamp == self.stamp;
        let stamp = settled(stamp, Some(now));
        let known = |changed, kept| self.live(changed, kept, stamp);
        if is_idle {
            return known(Some(Ranges::default()), Kept::AsItWas);
        }
        self.disk.drop_cached();
        match (&self.kept, &self.base) {
            (Kept::Copy, Some(base)) => match self.disk.copy() {
                Some(copy) => Moment {
                    changed: changed(&**base, &*copy).ok(),
                    is_frozen: true,
                    disk: copy,
                    ..known(None, Kept::Copy)
                },
                None => known(
                    changed(&**base, &*self.disk).ok(),
                    self.for_later(last, now),
                ),
            },
            (Kept::Base, Some(base)) => {
                // Summed first, for the scan after this one.
                let kept = self.for_later(last, now);
                known(changed(&**base, &*self.disk).ok(), kept)
            }
            (Kept::Sums(before), _) => {
                let kept = self.summed(Some(before), (!last).then_some(now));
                let changed = match &kept {
                    Kept::Sums(sums) => Some(sums.changed(before)),
                    _ => None,
                };
                known(changed, kept)
            }
            _ => known(None, self.for_later(last, now)),
        }
    }

    /// The disk itself, which somebody may write to.
    fn live(&self, changed: Option<Ranges>, kept: Kept, stamp: Option<Stamp>) -> Moment {
        let disk = Arc::clone(&self.disk);
        Moment {
            disk: match &kept {
                Kept::Sums(sums) => Arc::new(Noted::new(disk, Arc::clone(sums))),
                _ => disk,
            },
            changed,
            is_frozen: false,
            kept,
            stamp,
        }
    }

    /// What the moment saw is what the next scan is compared with.
    pub(crate) fn settle(&mut self, moment: Moment) {
        self.stamp = moment.stamp;
        match moment.kept {
            Kept::Copy => {
                self.base = Some(moment.disk);
                self.kept = Kept::Copy;
            }
            Kept::AsItWas => {}
            kept => self.kept = kept,
        }
    }

    /// What the scan after one that was not told by sums is compared with.
    fn for_later(&self, last: bool, now: i64) -> Kept {
        match last {
            true => Kept::Nothing,
            false => self.summed(None, Some(now)),
        }
    }

    /// `before`: what is below the disk and was below it then is not read again.
    fn summed(&self, before: Option<&Sums>, now: Option<i64>) -> Kept {
        let below = self.disk.below();
        let below = below.and_then(|below| Some((below, settled(below.stamp(), now)?)));
        let sums = Sums::since(before, &*self.disk, below);
        sums.map_or(Kept::Nothing, |sums| Kept::Sums(Arc::new(sums)))
    }
}

/// A stamp that changes with whatever is written from here on. `now`: the wall clock
/// in nanoseconds, where that is asked for.
fn settled(stamp: Option<Stamp>, now: Option<i64>) -> Option<Stamp> {
    let stamp = stamp?;
    let before = now?.saturating_sub(CLOCK_SLACK);
    let is_settled =
        |(_, modified, changed): &(u64, i64, i64)| *modified < before && *changed < before;
    stamp.files.iter().all(is_settled).then_some(stamp)
}

impl Moment {
    /// Whether nothing at all was written since the last scan.
    pub(crate) fn is_idle(&self) -> bool {
        self.changed.as_ref().is_some_and(Ranges::is_empty)
    }
}
