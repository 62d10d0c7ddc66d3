//! Which bytes of a disk differ from those of another, without reading what
//! both keep at the same place.

use super::{Blocks, Place};
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ranges of bytes, in order, apart from each other. They may hold bytes that
/// are as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// All bytes of a disk.
    pub(crate) fn all() -> Self {
        Self(std::iter::once(0..u64::MAX).collect())
    }

    /// Adds a range that begins at or after the last one's start.
    pub(crate) fn push(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.0.push(range),
        }
    }

    pub(crate) fn touch(&self, range: &Range<u64>) -> bool {
        let next = self.0.partition_point(|known| known.end <= range.start);
        self.0
            .get(next)
            .is_some_and(|known| known.start < range.end)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of a part of the disk, as it counts its bytes.
    pub(crate) fn within(&self, start: u64, len: u64) -> Self {
        let end = start.saturating_add(len);
        let mut within = Self::default();
        for range in &self.0 {
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                within.push(from - start..to - start);
            }
        }
        within
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    /// How many bytes they are.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = self.0.iter().map(|range| range.end - range.start);
        bytes.fold(0, u64::saturating_add)
    }
}

/// Bytes that are compared in one go.
const PIECE: u64 = 1 << 20;
/// Pieces that are collected before they are compared.
const AT_ONCE: usize = 4096;
/// Bytes of which one change marks all.
const GRAIN: usize = 4096;

/// Bytes of `after` that differ from those of `before`, or that only one of
/// them has. Bytes that differ come in whole grains of 4,096.
pub(crate) fn changed(before: &dyn Blocks, after: &dyn Blocks) -> io::Result<Ranges> {
    let common = before.size().min(after.size());
    let mut ranges = Ranges::default();
    let mut doubts: Vec<Doubt> = Vec::new();
    let mut at = 0;
    while at < common {
        let (was, was_len) = before.place(at)?;
        let (is, is_len) = after.place(at)?;
        let mut len = was_len.min(is_len).clamp(1, common - at);
        if !was.is_same(is) {
            len = len.min(PIECE);
            let range = at..at + len;
            doubts.push(Doubt { range, was, is });
        }
        at += len;
        if doubts.len() >= AT_ONCE {
            compare(before, after, &doubts, &mut ranges)?;
            doubts.clear();
        }
    }
    compare(before, after, &doubts, &mut ranges)?;
    ranges.push(common..before.size().max(after.size()));
    Ok(ranges)
}

/// Bytes that must be looked at.
struct Doubt {
    range: Range<u64>,
    was: Place,
    is: Place,
}

fn compare(
    before: &dyn Blocks,
    after: &dyn Blocks,
    doubts: &[Doubt],
    ranges: &mut Ranges,
) -> io::Result<()> {
    let found = in_parallel(doubts.len(), |index, buffers: &mut [Vec<u8>; 2]| {
        let mut differing = Vec::new();
        if let Some(doubt) = doubts.get(index) {
            let [was, is] = buffers;
            read(before, doubt.was, &doubt.range, was)?;
            read(after, doubt.is, &doubt.range, is)?;
            // Most pieces are equal: one comparison settles them.
            if was != is {
                differing = grains(doubt.range.start, was, is);
            }
        }
        Ok(differing)
    })?;
    for range in found.into_iter().flatten() {
        ranges.push(range);
    }
    Ok(())
}

fn read(disk: &dyn Blocks, at: Place, range: &Range<u64>, buffer: &mut Vec<u8>) -> io::Result<()> {
    let len = usize::try_from(range.end - range.start).unwrap_or(0);
    buffer.resize(len, 0);
    if at == Place::Zeros {
        buffer.fill(0);
        return Ok(());
    }
    disk.read_exact_at(buffer, range.start)
}

fn grains(start: u64, was: &[u8], is: &[u8]) -> Vec<Range<u64>> {
    let mut at = start;
    let mut ranges = Vec::new();
    for (was, is) in was.chunks(GRAIN).zip(is.chunks(GRAIN)) {
        let end = at + was.len() as u64;
        if was != is {
            ranges.push(at..end);
        }
        at = end;
    }
    ranges
}

/// Calls `work` with 0 to `count`, on all processors, and gives the answers in
/// that order. `S`: what each thread keeps from call to call.
pub(super) fn in_parallel<T: Send, S: Default>(
    count: usize,
    work: impl Fn(usize, &mut S) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    const MOST_THREADS: usize = 8;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(MOST_THREADS).min(count);
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Vec::new(), Ok(())));
    let run = || {
        let mut kept = S::default();
        let mut answers = Vec::new();
        let mut result = Ok(());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            match work(index, &mut kept) {
                Ok(answer) => answers.push((index, answer)),
                Err(error) => {
                    // Nobody needs the rest.
                    next.store(count, Ordering::Relaxed);
                    result = Err(error);
                    break;
                }
            }
        }
        let mut done = done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        done.0.extend(answers);
        if done.1.is_ok() {
            done.1 = result;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    let (mut answers, result) = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    result?;
    answers.sort_unstable_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
