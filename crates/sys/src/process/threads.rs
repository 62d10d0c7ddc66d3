//! What a process runs, and the interfaces where it runs.

use super::{Process, read};
use rustix::fs::{Dir, Mode, OFlags, openat};
use std::io;
use std::os::fd::OwnedFd;

/// Most threads that are looked at; a VMM's vCPUs are among its first.
const MAX_THREADS: usize = 256;

/// A thread, and how often a processor was given to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadTurns {
    /// Its number, which is the process' own for the first thread.
    pub thread: u32,
    /// As it named itself.
    pub name: String,
    /// How often a processor was taken from it, or given up by it.
    pub turns: u64,
}

/// Most bytes of a list of interfaces that are looked at.
const MAX_INTERFACES: u64 = 256 << 10;

impl Process {
    /// The names of its threads, as they gave them to themselves: at most 256.
    /// A thread that ends meanwhile is left out.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn thread_names(&self) -> io::Result<Vec<String>> {
        self.threads(|dir, thread| {
            let name = read(dir, &format!("{thread}/comm"), 64).ok()?;
            Some(String::from_utf8_lossy(&name).trim_end().to_owned())
        })
    }

    /// How often each of its threads ran; `None` of more than are looked at.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn thread_turns(&self) -> io::Result<Option<Vec<ThreadTurns>>> {
        let turns = self.threads(|dir, thread| {
            let status = read(dir, &format!("{thread}/status"), 8192).ok()?;
            turns(thread, &String::from_utf8_lossy(&status))
        })?;
        Ok(Some(turns).filter(|turns| turns.len() < MAX_THREADS))
    }

    fn threads<T>(&self, look: impl Fn(&OwnedFd, &str) -> Option<T>) -> io::Result<Vec<T>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.dir, "task", flags, Mode::empty())?;
        let mut seen = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let Ok(thread) = entry.file_name().to_str() else {
                continue;
            };
            if thread.starts_with('.') {
                continue;
            }
            seen.extend(look(&dir, thread));
            if seen.len() == MAX_THREADS {
                break;
            }
        }
        Ok(seen)
    }

    /// The names of the interfaces in its network namespace, of which those
    /// beyond some thousands are left out.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn interfaces(&self) -> io::Result<Vec<String>> {
        let bytes = read(&self.dir, "net/dev", MAX_INTERFACES)?;
        let text = String::from_utf8_lossy(&bytes);
        // Two lines of headings, which have no colon after the first word.
        let names = text.lines().filter_map(|line| line.rsplit_once(':'));
        Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
    }
}

/// proc_pid_status(5).
fn turns(thread: &str, status: &str) -> Option<ThreadTurns> {
    let value = |name: &str| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim())
    };
    let count = |name| value(name)?.parse::<u64>().ok();
    Some(ThreadTurns {
        thread: thread.parse().ok()?,
        name: value("Name")?.to_owned(),
        turns: count("voluntary_ctxt_switches")? + count("nonvoluntary_ctxt_switches")?,
    })
}

#[cfg(test)]
mod tests {
    use crate::process::ProcRoot;

    #[test]
    fn threads_and_interfaces_of_this_process() {
        let (told, waits) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("fc_vcpu 0".to_owned());
        let thread = thread.spawn(move || waits.recv()).unwrap();
        let own = ProcRoot::host().process(std::process::id()).unwrap();
        // A thread names itself once it runs.
        while !own
            .thread_names()
            .unwrap()
            .contains(&"fc_vcpu 0".to_owned())
        {
            std::thread::yield_now();
        }
        assert!(own.interfaces().unwrap().contains(&"lo".to_owned()));
        let turns = || {
            let turns = own.thread_turns().unwrap().unwrap();
            turns.into_iter().find(|it| it.name == "fc_vcpu 0")
        };
        let waiting = turns().unwrap();
        assert_ne!(waiting.thread, std::process::id());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(turns().unwrap(), waiting, "it waits");
        drop(told);
        assert!(thread.join().unwrap().is_err());
    }
}
