//! Processes as `/proc` shows them (proc(5)).
//!
//! A [`Process`] holds its directory open, so that nothing read through it
//! can come from another process that was given the same pid. What a process
//! says of itself is hostile: every read is bounded, and paths that it names
//! are resolved below its own root.

mod descriptors;
mod paths;
mod pidfd;
mod threads;

pub use descriptors::{Access, Descriptor, DescriptorKind, Descriptors, FileId};
pub use paths::connect_at_once;
pub use pidfd::Pidfd;
pub use threads::ThreadTurns;

use rustix::fs::{Mode, OFlags, openat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Most bytes of a command line that are looked at.
const MAX_COMMAND_LINE: u64 = 256 << 10;

/// Most arguments of a command line that are looked at.
const MAX_ARGUMENTS: usize = 4096;

/// Most bytes of the table of mounts that are looked at.
const MAX_MOUNTINFO: u64 = 4 << 20;

/// Where processes and named network namespaces are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcRoot {
    proc: PathBuf,
    netns: PathBuf,
}

impl Default for ProcRoot {
    fn default() -> Self {
        Self::host()
    }
}

impl ProcRoot {
    /// This host's.
    #[must_use]
    pub fn host() -> Self {
        Self::at("/proc", crate::netns::NAMED)
    }

    /// Others, such as a test's.
    pub fn at(proc: impl Into<PathBuf>, netns: impl Into<PathBuf>) -> Self {
        Self {
            proc: proc.into(),
            netns: netns.into(),
        }
    }

    /// Ids of all processes, in ascending order.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.proc)? {
            let name = entry?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// Takes hold of a process.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn process(&self, pid: u32) -> io::Result<Process> {
        let path = self.proc.join(pid.to_string());
        let dir = open_dir(rustix::fs::CWD, &path)?;
        let start_ticks = start_ticks(&read(&dir, "stat", 4096)?)?;
        Ok(Process {
            dir,
            path,
            pid,
            start_ticks,
        })
    }

    /// The network namespace of this program.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn own_net_namespace(&self) -> io::Result<FileId> {
        FileId::of(&self.proc.join("self/ns/net"))
    }

    /// Named network namespaces. One that goes away meanwhile is left out.
    ///
    /// # Errors
    /// When their directory exists and cannot be listed.
    pub fn named_net_namespaces(&self) -> io::Result<Vec<(OsString, FileId)>> {
        let entries = match std::fs::read_dir(&self.netns) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut named = Vec::new();
        for entry in entries {
            let entry = entry?;
            let id = FileId::of(&entry.path());
            named.extend(id.ok().map(|id| (entry.file_name(), id)));
        }
        named.sort();
        Ok(named)
    }

    /// The network namespace of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named_net_namespace(&self, name: &OsStr) -> io::Result<FileId> {
        FileId::of(&self.netns.join(name))
    }

    /// The file of a namespace: a path as it stands, a bare name among the named ones.
    #[must_use]
    pub fn net_namespace_path(&self, name_or_path: &str) -> PathBuf {
        if name_or_path.contains('/') {
            PathBuf::from(name_or_path)
        } else {
            self.netns.join(name_or_path)
        }
    }
}

/// One process, held by its directory: once it is gone every read fails,
/// whoever has its pid then.
#[derive(Debug)]
pub struct Process {
    dir: OwnedFd,
    path: PathBuf,
    pid: u32,
    start_ticks: u64,
}

impl Process {
    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in clock ticks since boot. With the pid this names one process.
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// A path below the process' directory, such as `ns/net`. Opening it is
    /// only safe from a re-used pid where what was opened is checked.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.path.join(below)
    }

    /// Its arguments, of which long ones at the end may be missing; empty for
    /// a kernel thread or a zombie.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn arguments(&self) -> io::Result<Vec<Vec<u8>>> {
        let bytes = read(&self.dir, "cmdline", MAX_COMMAND_LINE)?;
        Ok(split_arguments(&bytes))
    }

    /// What it calls its working directory. Only for people and for names;
    /// never to be opened.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked into (`CAP_SYS_PTRACE`).
    pub fn working_directory(&self) -> io::Result<PathBuf> {
        let link = rustix::fs::readlinkat(&self.dir, "cwd", Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(link.into_bytes())))
    }

    /// Base name of the program that it runs, by whatever name it was started;
    /// also where that file was replaced meanwhile.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked into (`CAP_SYS_PTRACE`).
    pub fn program(&self) -> io::Result<String> {
        let link = rustix::fs::readlinkat(&self.dir, "exe", Vec::new())?;
        let link = link.to_string_lossy();
        let path = link.strip_suffix(" (deleted)").unwrap_or(&link);
        Ok(path.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// What is mounted where it runs (`/proc/PID/mountinfo`), of which a
    /// monstrous one is cut off.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn mountinfo(&self) -> io::Result<String> {
        let bytes = read(&self.dir, "mountinfo", MAX_MOUNTINFO)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its cgroup in the unified hierarchy, as a path from that one's root
    /// (cgroups(7)).
    ///
    /// # Errors
    /// When the process is gone, or is in no such cgroup.
    pub fn cgroup(&self) -> io::Result<String> {
        let bytes = read(&self.dir, "cgroup", 64 << 10)?;
        let text = String::from_utf8_lossy(&bytes);
        let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
        let none = || io::Error::new(io::ErrorKind::NotFound, "in no unified cgroup");
        unified.map(str::to_owned).ok_or_else(none)
    }

    /// Whether a signal or a tracer stopped it (states `T` and `t`).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn is_stopped(&self) -> io::Result<bool> {
        let stat = read(&self.dir, "stat", 4096)?;
        Ok(matches!(field(&stat, 3), Some("T" | "t")))
    }

    /// Its network namespace.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked into (`CAP_SYS_PTRACE`).
    pub fn net_namespace(&self) -> io::Result<FileId> {
        FileId::at(&self.dir, "ns/net")
    }

    /// Whether it still runs under its pid. One that ended and that nobody
    /// waited for yet (a zombie, which has nothing open) does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Ok(stat) = read(&self.dir, "stat", 4096) else {
            return false;
        };
        let is_same = start_ticks(&stat).is_ok_and(|ticks| ticks == self.start_ticks);
        // Its first thread may have ended alone.
        let is_zombie = matches!(field(&stat, 3), Some("Z" | "X"));
        is_same && !(is_zombie && matches!(field(&stat, 20), Some("0" | "1")))
    }
}

fn open_dir(base: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(base, path, flags, Mode::empty())?)
}

fn read(dir: impl AsFd, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn start_ticks(stat: &[u8]) -> io::Result<u64> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed /proc/PID/stat");
    field(stat, 22)
        .and_then(|field| field.parse().ok())
        .ok_or_else(malformed)
}

/// A field of `/proc/PID/stat` from the third on (proc_pid_stat(5)). The second,
/// the name, may hold anything, also spaces and brackets; no later one holds a
/// bracket.
fn field(stat: &[u8], number: usize) -> Option<&str> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

fn split_arguments(bytes: &[u8]) -> Vec<Vec<u8>> {
    // What follows the last NUL is either nothing or was cut off.
    let end = bytes.iter().rposition(|&byte| byte == 0).unwrap_or(0);
    let arguments = bytes.get(..end).unwrap_or_default();
    if arguments.is_empty() {
        return Vec::new();
    }
    let arguments = arguments.split(|&byte| byte == 0).take(MAX_ARGUMENTS);
    arguments.map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests;
