//! Ways to watch a process, each as it would be done.

use anyhow::{Context as _, Result, bail};
use sandtrace_capture::syscall::SyscallSource;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_sys::bpf::BpfConfig;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// This program's own argument to watch a process.
pub(crate) const WATCH: &str = "watch-system-calls";

/// Another process that watches one until it is dropped.
pub(super) struct Watcher(Child);

impl Watcher {
    /// This program again, by `ebpf` or `ptrace`: a process does not trace
    /// its own children.
    pub(super) fn own(backend: &str, pid: u32) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([WATCH, backend, &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a watcher")?;
        let output = child.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.trim() != "watching" {
            bail!("{backend}: it does not watch: {line}");
        }
        Ok(Self(child))
    }

    /// strace, once it is attached.
    pub(super) fn strace(pid: u32) -> Result<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-c", "-f", "-q", "-o", "/dev/null", "-p"]);
        let child = strace
            .arg(pid.to_string())
            .spawn()
            .context("start strace")?;
        let mine = format!("TracerPid:\t{}", child.id());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            if status.lines().any(|line| line == mine) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Self(child))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Ours ends with its input, strace with what it traced.
        drop(self.0.stdin.take());
        let _reaped = self.0.wait();
    }
}

/// Watches a process until standard input ends, as a watch does: facts ten
/// times a second, counts each 5 s.
pub(crate) fn watch(backend: &str, pid: &str) -> Result<()> {
    let pid = pid.parse().context("a process' id")?;
    let mut source: Box<dyn SyscallSource> = match backend {
        "ebpf" => Box::new(EbpfSource::attach(pid, BpfConfig::default())?),
        _ => Box::new(PtraceSource::attach(pid)?),
    };
    println!("watching");
    let (ends, ended) = channel::<()>();
    std::thread::spawn(move || {
        let _whatever_came = std::io::stdin().lock().read_to_end(&mut Vec::new());
        drop(ends);
    });
    let mut due = Instant::now() + Duration::from_secs(5);
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_millis(100)) {
        drop(source.facts());
        if Instant::now() >= due {
            drop(source.counts());
            due += Duration::from_secs(5);
        }
    }
    Ok(())
}
