//! What tells that something may have changed: the kernel's process events,
//! and inotify on cgroups and, where there are no process events, on the
//! directories in which sandboxes show. None of them is relied on: the look at
//! everything is the net.

use super::known::{Name, name_of};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use sandtrace_provider::{ProcRoot, Sighting, USUAL_FOLDERS};
use sandtrace_sys::proc_events::{ProcEvent, ProcEvents};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest sleep.
const NAP: Duration = Duration::from_millis(50);

/// Without process events, time between two looks for new processes.
const LOOK: Duration = Duration::from_millis(100);

/// After something showed in a directory, and for how long.
const RESTLESS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// For so long a process may still become a VMM: it is made by a fork first.
const YOUNG: Duration = Duration::from_secs(1);

/// Most directories that are watched.
const MOST_FOLDERS: usize = 1024;

/// Events that are read in one go.
const AT_ONCE: usize = 4096;

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Processes that may be VMMs.
    pub(super) processes: Vec<u32>,
    /// Watched ones whose cgroup was frozen or thawed.
    pub(super) frozen: Vec<Name>,
}

pub(super) struct Senses {
    events: Option<ProcEvents>,
    files: Option<Files>,
    newcomers: Newcomers,
}

impl Senses {
    pub(super) fn new(events: Option<ProcEvents>) -> Self {
        let mut senses = Self {
            events,
            // Without any the intervals hold.
            files: Files::open().ok(),
            newcomers: Newcomers::default(),
        };
        if senses.events.is_none() {
            senses.do_without_events();
        }
        senses
    }

    /// What has happened since the last call; does not wait.
    pub(super) fn hear(&mut self, proc: &ProcRoot, now: Instant) -> Heard {
        let mut heard = Heard::default();
        if let Some(events) = &mut self.events {
            let read = events.read(|event| {
                // What was lost the look at everything finds.
                if let ProcEvent::Exec(pid) = event {
                    heard.processes.push(pid);
                }
            });
            if read.is_err() {
                self.do_without_events();
            }
        }
        let stirred = self
            .files
            .as_mut()
            .is_some_and(|it| it.read(&mut heard.frozen));
        if self.events.is_none() {
            if stirred {
                self.newcomers.restless_until = Some(now + RESTLESS.1);
            }
            self.newcomers.look(proc, now, &mut heard.processes);
        }
        heard
    }

    /// Listens to what concerns one that is watched, and to where the next of
    /// its kind will show.
    pub(super) fn follow(&mut self, sighting: &Sighting) {
        let Some(files) = &mut self.files else { return };
        if let Some(events) = sighting.cgroup_events() {
            files.follow(&events, name_of(sighting));
        }
        if self.events.is_none() {
            for folder in sighting.folders() {
                files.watch(&folder);
            }
        }
    }

    /// One whose pid another process has by now is followed further.
    pub(super) fn forget(&mut self, name: Name) {
        if let Some(files) = &mut self.files {
            files.forget(name);
        }
    }

    /// Until something can be heard, or `next`.
    pub(super) fn sleep(&self, next: Option<Instant>, now: Instant) {
        let own = self.newcomers.next().filter(|_| self.events.is_none());
        let next = next.into_iter().chain(own).min();
        let left = next.map_or(NAP, |at| at.saturating_duration_since(now));
        let timeout = Timespec::try_from(left.min(NAP)).unwrap_or_default();
        let events = self.events.iter().map(|it| PollFd::new(it, PollFlags::IN));
        let files = self.files.iter();
        let files = files.map(|it| PollFd::new(&it.inotify, PollFlags::IN));
        let mut fds: Vec<_> = events.chain(files).collect();
        // Interrupted or not, who sleeps looks again.
        let _woken = poll(&mut fds, Some(&timeout));
    }

    fn do_without_events(&mut self) {
        self.events = None;
        if let Some(files) = &mut self.files {
            for folder in USUAL_FOLDERS {
                files.watch(Path::new(folder));
            }
        }
    }
}

/// Files and directories of which the kernel tells.
struct Files {
    inotify: OwnedFd,
    folders: BTreeMap<i32, PathBuf>,
    /// Who is in a cgroup.
    cgroups: BTreeMap<i32, Vec<Name>>,
}

impl Files {
    fn open() -> io::Result<Self> {
        Ok(Self {
            inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            folders: BTreeMap::new(),
            cgroups: BTreeMap::new(),
        })
    }

    /// One that is not there, or cannot be watched, tells nothing.
    fn watch(&mut self, folder: &Path) {
        let is_known = self.folders.values().any(|known| known == folder);
        if is_known || self.folders.len() >= MOST_FOLDERS {
            return;
        }
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        if let Ok(watch) = add_watch(&self.inotify, folder, flags) {
            self.folders.insert(watch, folder.to_owned());
        }
    }

    fn follow(&mut self, events: &Path, name: Name) {
        if let Ok(watch) = add_watch(&self.inotify, events, WatchFlags::MODIFY) {
            self.cgroups.entry(watch).or_default().push(name);
        }
    }

    /// The kernel drops the watch of a cgroup that goes.
    fn forget(&mut self, name: Name) {
        for names in self.cgroups.values_mut() {
            names.retain(|other| *other != name);
        }
    }

    /// Whether something showed in a directory.
    fn read(&mut self, frozen: &mut Vec<Name>) -> bool {
        let mut stirred = false;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        for _ in 0..AT_ONCE {
            let Ok(event) = reader.next() else { break };
            let (watch, flags) = (event.wd(), event.events());
            if flags.contains(ReadFlags::IGNORED) {
                self.folders.remove(&watch);
                self.cgroups.remove(&watch);
            } else if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                stirred = true;
                frozen.extend(self.cgroups.values().flatten());
            } else if let Some(names) = self.cgroups.get(&watch) {
                frozen.extend(names);
            } else {
                stirred |= self.folders.contains_key(&watch);
            }
        }
        stirred
    }
}

/// Processes that are new, where no event tells of them.
#[derive(Default)]
struct Newcomers {
    /// All that there are, and when each was seen first.
    seen: BTreeMap<u32, Instant>,
    looked: Option<Instant>,
    restless_until: Option<Instant>,
}

impl Newcomers {
    fn next(&self) -> Option<Instant> {
        let looked = self.looked?;
        let is_restless = self.restless_until.is_some_and(|until| looked < until);
        Some(looked + if is_restless { RESTLESS.0 } else { LOOK })
    }

    fn look(&mut self, proc: &ProcRoot, now: Instant, found: &mut Vec<u32>) {
        if self.next().is_some_and(|next| now < next) {
            return;
        }
        self.looked = Some(now);
        // The next look may be luckier.
        let Ok(pids) = proc.pids() else { return };
        self.seen.retain(|pid, _| pids.binary_search(pid).is_ok());
        for pid in pids {
            let since = *self.seen.entry(pid).or_insert(now);
            if now.saturating_duration_since(since) < YOUNG {
                found.push(pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn frozen(files: &mut Files) -> (bool, Vec<Name>) {
        let mut frozen = Vec::new();
        let stirred = files.read(&mut frozen);
        frozen.sort_unstable();
        frozen.dedup();
        (stirred, frozen)
    }

    #[test]
    fn files_tell_of_cgroups_and_of_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let (sockets, events) = (dir.path().join("sockets"), dir.path().join("cgroup.events"));
        fs::create_dir(&sockets).unwrap();
        fs::write(&events, "frozen 0").unwrap();
        let mut files = Files::open().unwrap();
        files.watch(&sockets);
        files.watch(&dir.path().join("none"));
        let (old, new, other) = ((7, 100), (7, 900), (8, 100));
        files.follow(&events, old);
        files.follow(&events, other);
        assert_eq!(frozen(&mut files), (false, vec![]));
        fs::write(&events, "frozen 1").unwrap();
        assert_eq!(frozen(&mut files), (false, vec![old, other]));
        fs::write(sockets.join("fc-ibox-x1.sock"), "").unwrap();
        assert_eq!(frozen(&mut files), (true, vec![]));
        // Its pid is another's before the end of it is noticed.
        files.follow(&events, new);
        files.forget(old);
        fs::write(&events, "frozen 0").unwrap();
        assert_eq!(frozen(&mut files), (false, vec![new, other]));
        // What is gone tells nothing more, and leaves nothing behind.
        fs::remove_file(&events).unwrap();
        fs::remove_dir_all(&sockets).unwrap();
        frozen(&mut files);
        assert!(files.cgroups.is_empty() && files.folders.is_empty());
    }

    #[test]
    fn new_processes_are_looked_at_while_they_are_young() {
        let dir = tempfile::tempdir().unwrap();
        let proc = ProcRoot::at(dir.path().to_owned(), dir.path().join("netns"));
        let start = |pid: u32| fs::create_dir(dir.path().join(pid.to_string())).unwrap();
        let (begin, mut newcomers) = (Instant::now(), Newcomers::default());
        let mut look = |milliseconds, stirred| {
            let now = begin + Duration::from_millis(milliseconds);
            if stirred {
                newcomers.restless_until = Some(now + RESTLESS.1);
            }
            let mut found = Vec::new();
            newcomers.look(&proc, now, &mut found);
            found
        };
        start(7);
        assert_eq!(look(0, false), [7]);
        start(8);
        assert_eq!(look(50, false), [0; 0], "not yet");
        assert_eq!(look(100, false), [7, 8]);
        assert_eq!(look(1000, false), [8]);
        assert_eq!(look(2000, false), [0; 0], "they are old");
        start(9);
        assert_eq!(look(2010, true), [0; 0], "not so soon after the last");
        assert_eq!(look(2021, false), [9]);
        assert_eq!(look(2041, false), [9]);
        fs::remove_dir(dir.path().join("7")).unwrap();
        look(2300, false);
        start(7);
        assert_eq!(look(2500, false), [7, 9], "another of this number");
    }
}
