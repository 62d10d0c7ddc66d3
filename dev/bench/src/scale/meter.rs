//! What a running `sandtrace` takes, as the kernel counts it.

use anyhow::{Context as _, Result};
use std::fs;
use std::time::Instant;

/// One look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    at: Instant,
    ticks: u64,
    /// Of the threads that read packets alone.
    capture_ticks: u64,
    /// Resident set without what is mapped from packet rings, in bytes.
    pub(super) memory: u64,
    /// Packet rings and mapped files, in bytes.
    pub(super) mapped: u64,
    /// What the kernel holds for its eBPF tables and programs, in bytes.
    pub(super) kernel: u64,
    pub(super) threads: u64,
    pub(super) descriptors: usize,
    /// Bytes that it had written.
    pub(super) written: u64,
}

impl Reading {
    /// Reads proc_pid_stat(5), proc_pid_status(5), proc_pid_io(5) and
    /// proc_pid_fd(5).
    pub(super) fn of(pid: u32) -> Result<Self> {
        let file = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let status = file("status")?;
        let number = |text: &str, name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            let number = word.and_then(|word| word.parse().ok());
            number.with_context(|| format!("no {name} of process {pid}"))
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("listing descriptors")?;
        Ok(Self {
            at: Instant::now(),
            ticks: ticks(&file("stat")?)?,
            capture_ticks: capture_ticks(pid)?,
            memory: number(&status, "RssAnon:")? * 1024,
            mapped: (number(&status, "RssFile:")? + number(&status, "RssShmem:")?) * 1024,
            kernel: kernel_memory(pid)?,
            threads: number(&status, "Threads:")?,
            descriptors: descriptors.count(),
            written: number(&file("io")?, "write_bytes:")?,
        })
    }

    /// Share of one processor since an earlier look.
    pub(super) fn cpu_since(&self, earlier: &Self) -> f64 {
        self.share(self.ticks - earlier.ticks, earlier)
    }

    /// The same of the threads that read packets.
    pub(super) fn capture_since(&self, earlier: &Self) -> f64 {
        self.share(self.capture_ticks - earlier.capture_ticks, earlier)
    }

    fn share(&self, ticks: u64, earlier: &Self) -> f64 {
        let hertz = rustix::param::clock_ticks_per_second();
        let seconds = super::to_f64(ticks) / super::to_f64(hertz);
        seconds / (self.at - earlier.at).as_secs_f64()
    }
}

/// Ticks in the kernel and outside of it, from proc_pid_stat(5).
fn ticks(stat: &str) -> Result<u64> {
    let (_, fields) = stat.rsplit_once(") ").context("an odd stat file")?;
    let ticks = fields.split(' ').skip(11).take(2);
    Ok(ticks.filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn capture_ticks(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).context("listing threads")? {
        let path = entry.context("listing threads")?.path();
        // One that ended meanwhile counts for nothing.
        if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "capture") {
            sum += ticks(&fs::read_to_string(path.join("stat")).context("reading a thread")?)?;
        }
    }
    Ok(sum)
}

/// The sum of what descriptors of eBPF tables and programs are charged for.
fn kernel_memory(pid: u32) -> Result<u64> {
    let mut sum = 0;
    let listed = fs::read_dir(format!("/proc/{pid}/fdinfo")).context("listing descriptors")?;
    for entry in listed {
        // One that was closed meanwhile counts for nothing.
        let Ok(text) = fs::read_to_string(entry.context("listing descriptors")?.path()) else {
            continue;
        };
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes = line.and_then(|line| line.trim().parse::<u64>().ok());
        sum += bytes.unwrap_or(0);
    }
    Ok(sum)
}
