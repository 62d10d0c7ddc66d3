//! A measured child process: time, CPU and memory.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a child is looked at; the error of a wall time.
const LOOK: Duration = Duration::from_millis(2);

/// A child that is being measured.
pub(crate) struct Running {
    child: Child,
    pid: Pid,
    begun: Instant,
}

/// What a child took.
#[derive(Debug)]
pub(crate) struct Took {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// From start to end.
    pub(crate) wall: Duration,
    /// User and system time of all its threads, in steps of a clock tick.
    pub(crate) cpu: Duration,
    /// Largest resident set, in bytes.
    pub(crate) peak_memory: u64,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let begun = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("running {}", command.get_program().display()))?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, begun })
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Asks it to end, as Ctrl-C does, and awaits that.
    pub(crate) fn interrupt(self) -> Result<Took> {
        kill_process(self.pid, Signal::INT).context("interrupting a child")?;
        self.finish()
    }

    /// Awaits its end.
    pub(crate) fn finish(mut self) -> Result<Took> {
        let mut peak_memory = 0;
        // Leaves the ended process in place, so that its times can be read.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(self.pid), ended)
            .context("awaiting a child")?
            .is_none()
        {
            peak_memory = peak_memory.max(self.peak_memory().unwrap_or(0));
            sleep(LOOK);
        }
        let wall = self.begun.elapsed();
        let cpu = self.cpu().context("reading a child's times")?;
        let status = self.child.wait().context("awaiting a child")?;
        Ok(Took {
            status,
            wall,
            cpu,
            peak_memory,
        })
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).ok()
    }

    /// `VmHWM` of proc_pid_status(5).
    fn peak_memory(&self) -> Option<u64> {
        let status = self.file("status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Fields 14 and 15 of proc_pid_stat(5), the name in field 2 left out.
    fn cpu(&self) -> Option<Duration> {
        let stat = self.file("stat")?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let ticks = ticks()? + ticks()?;
        let millis = ticks * 1000 / rustix::param::clock_ticks_per_second();
        Some(Duration::from_millis(millis))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only where measuring failed is it still there.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_child_is_measured() {
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let running = Running::start(Command::new("sh").args(["-c", script])).unwrap();
        let took = running.finish().unwrap();
        assert!(took.status.success());
        assert!(took.cpu > Duration::from_millis(20), "{took:?}");
        assert!(took.wall + Duration::from_millis(20) > took.cpu, "{took:?}");
        assert!(took.peak_memory > 100_000, "{took:?}");
    }
}
