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
    /// How long it ran, in nanoseconds: one alone on its processor keeps that, and
    /// is seen by this at the next tick, a second later at most.
    pub ran_ns: u64,
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

    /// How often and how long each of its threads ran; `None` of more than are
    /// looked at. Of a kernel that does not count the time (`CONFIG_SCHED_INFO`,
    /// which KVM needs) there are none.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn thread_turns(&self) -> io::Result<Option<Vec<ThreadTurns>>> {
        let turns = self.threads(|dir, thread| {
            let status = read(dir, &format!("{thread}/status"), 8192).ok()?;
            let times = read(dir, &format!("{thread}/schedstat"), 128).ok()?;
            let [status, times] = [&status, &times].map(|text| String::from_utf8_lossy(text));
            turns(thread, &status, &times)
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

/// proc_pid_status(5), and Documentation/scheduler/sched-stats.rst.
fn turns(thread: &str, status: &str, times: &str) -> Option<ThreadTurns> {
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
        ran_ns: times.split(' ').next()?.parse().ok()?,
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

    /// Whether or not a processor is taken from it.
    #[test]
    fn a_thread_that_runs_shows_by_its_time() {
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("busy".to_owned());
            let busy = thread.spawn_scoped(scope, || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let own = ProcRoot::host().process(std::process::id()).unwrap();
            let ran = || {
                let turns = own.thread_turns().unwrap().unwrap();
                turns
                    .into_iter()
                    .find(|it| it.name == "busy")
                    .map(|it| it.ran_ns)
            };
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while ran().is_none_or(|ran| ran < 50_000_000) {
                assert!(std::time::Instant::now() < deadline);
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            busy.unwrap().join().unwrap();
        });
    }
}
