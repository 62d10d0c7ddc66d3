//! Processes that can be told from later ones with the same number.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process id with the time the process started, in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) start: u64,
}

impl Process {
    pub(crate) fn me() -> io::Result<Self> {
        Self::with_pid(std::process::id())
    }

    pub(crate) fn with_pid(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start = start_time(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::with_pid(self.pid).is_ok_and(|now| now == *self)
    }

    /// Kills the process if it still is the one that was meant.
    pub(crate) fn kill(&self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return;
        };
        // The descriptor pins the process, so that the check below holds for the signal too.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if self.is_alive() && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&PATIENCE));
        }
    }
}

/// How long a killed process may take to go.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Waits until the child ends, at most for `timeout`; true if it ended.
pub(crate) fn ends_within(pid: u32, timeout: Duration) -> io::Result<bool> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    // A signal that is handled elsewhere is no end of this wait.
    Ok(retry_on_intr(|| poll(&mut fds, Some(&timeout)))? > 0)
}

/// Field 22 of proc_pid_stat(5); the name in field 2 may itself hold spaces and brackets.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_start_time() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 5 6";
        assert_eq!(start_time(stat), Some(4242));
        assert_eq!(start_time("7 (a"), None);
    }

    #[test]
    fn another_process_with_the_number_is_not_meant() {
        let me = Process::me().unwrap();
        assert!(me.is_alive());
        let earlier = Process {
            start: me.start + 1,
            ..me
        };
        assert!(!earlier.is_alive());
        earlier.kill();
        assert!(me.is_alive());
    }
}
