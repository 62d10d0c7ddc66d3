//! What brings the scan of a disk forward: the kernel's word that somebody
//! wrote to it.
//!
//! Each disk has a queue of events of its own, so that a sandbox that floods
//! it is its own loss. A queue wakes once, and anew after the next scan: a
//! flood costs no more than a single write.

use super::sandbox::lock;
use crate::show;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of no disk: the watch ends.
const END: u64 = u64::MAX;
/// Events taken at once.
const EVENTS: usize = 64;

/// Where all queues are waited for.
pub(super) struct Wakes {
    poll: OwnedFd,
    is_told: AtomicBool,
    /// Closed at the end, which the ear hears.
    bell: Mutex<Option<PipeWriter>>,
    _ear: PipeReader,
}

impl Wakes {
    pub(super) fn open() -> io::Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let (ear, bell) = pipe()?;
        epoll::add(&poll, &ear, EventData::new_u64(END), EventFlags::IN)?;
        Ok(Self {
            poll,
            is_told: AtomicBool::new(false),
            bell: Mutex::new(Some(bell)),
            _ear: ear,
        })
    }

    /// Wakes once when the queue of a disk has something, or has already.
    pub(super) fn arm(&self, queue: BorrowedFd<'_>, disk: u64) {
        let data = EventData::new_u64(disk);
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        if epoll::modify(&self.poll, queue, data, flags).is_err()
            && let Err(why) = epoll::add(&self.poll, queue, data, flags)
        {
            self.tell(&why.into());
        }
    }

    /// Says once that the kernel gives no more queues. Nothing is lost by it:
    /// what changed is told later.
    pub(super) fn tell(&self, why: &io::Error) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            show::tell(&format!(
                "  some disks are looked at on the scan interval alone, whatever is written: {why}"
            ));
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.bell).take();
    }

    /// Hands over the number of each disk that is woken, until
    /// [`Self::stop`].
    pub(super) fn run(&self, wake: impl Fn(u64)) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.poll, buffer, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                // The event's members are not aligned.
                let data = event.data;
                match data.u64() {
                    END => return Ok(()),
                    disk => wake(disk),
                }
            }
        }
    }
}
