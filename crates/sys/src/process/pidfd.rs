//! Waiting for one process and no other.

use super::ProcRoot;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A handle of a process that becomes readable when the process ends
/// (pidfd_open(2)).
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens the process that has this pid and started at this time, as
    /// [`super::Process::start_ticks`] says it.
    ///
    /// # Errors
    /// `NotFound` when that process has ended, also where another one has
    /// its pid now.
    pub fn open(pid: u32, start_ticks: u64) -> io::Result<Self> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the process has ended");
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(raw.ok_or_else(gone)?, PidfdFlags::empty());
        let pidfd = pidfd.map_err(|errno| match errno {
            rustix::io::Errno::SRCH => gone(),
            errno => errno.into(),
        })?;
        // Looked up after the handle was opened: if it is the right process
        // now, it was when the handle was made.
        let now = ProcRoot::host().process(pid).map_err(|_| gone())?;
        if now.start_ticks() == start_ticks {
            Ok(Self(pidfd))
        } else {
            Err(gone())
        }
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// When the kernel cannot poll.
    pub fn has_ended(&self) -> io::Result<bool> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        Ok(self.poll(&now)? > 0)
    }

    /// Waits for its end, at most this long. Says whether it ended.
    #[must_use]
    pub fn ends_within(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).unwrap_or_default();
        self.poll(&patience).is_ok_and(|ready| ready > 0)
    }

    fn poll(&self, patience: &Timespec) -> rustix::io::Result<usize> {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(patience))
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
