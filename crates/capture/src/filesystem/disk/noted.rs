//! A disk of which nothing tells whether somebody writes to it: what was read is
//! summed again.

use super::sums::{Sum, Sums};
use super::{Blocks, Place, Stamp};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A disk that was summed, and notes which of its pieces are read since.
#[derive(Debug)]
pub(crate) struct Noted {
    disk: Arc<dyn Blocks>,
    sums: Arc<Sums>,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    /// By piece: whether it was read.
    read: Vec<bool>,
    /// What is there by now of pieces that are not what they were.
    later: HashMap<usize, Sum>,
}

impl Noted {
    pub(crate) fn new(disk: Arc<dyn Blocks>, sums: Arc<Sums>) -> Self {
        let notes = Notes {
            read: vec![false; sums.len()],
            later: HashMap::new(),
        };
        let notes = Mutex::new(notes);
        Self { disk, sums, notes }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// The pieces that were read since this was asked last.
    fn take(&mut self) -> Vec<usize> {
        let read = self.read.iter_mut().enumerate();
        let taken = read.filter_map(|(piece, is_read)| std::mem::take(is_read).then_some(piece));
        taken.collect()
    }
}

impl Blocks for Noted {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        let pieces = self.sums.pieces(offset..end);
        if let Some(read) = self.notes().read.get_mut(pieces) {
            read.fill(true);
        }
        self.disk.read_exact_at(buffer, offset)
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        self.disk.place(offset)
    }

    fn stamp(&self) -> Option<Stamp> {
        self.disk.stamp()
    }

    /// What is there at both ends of a time was there between. A piece that is
    /// written to and then gets its old bytes back within it is not told.
    fn is_as_read(&self) -> bool {
        self.disk.drop_cached();
        let mut notes = self.notes();
        let read = notes.take();
        let Ok(sums) = self.sums.again(&*self.disk, &read) else {
            return false;
        };
        let mut is_same = true;
        for (piece, sum) in read.into_iter().zip(sums) {
            let before = notes.later.get(&piece).copied();
            if before.or_else(|| self.sums.get(piece)) != Some(sum) {
                notes.later.insert(piece, sum);
                is_same = false;
            }
        }
        is_same
    }

    fn drop_cached(&self) {
        self.disk.drop_cached();
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        self.disk.again()
    }
}
