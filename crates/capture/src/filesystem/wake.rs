//! Events of the kernel that say that a scan is worth its while.
//!
//! They are no more than that: a write through a mapping gives none, an
//! overlay hides those of writes to files, and queues overflow. The scan is
//! the truth, and comes in its time without any event.

use super::config::Source;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Directories that are watched; what is in others wakes nobody, and is told
/// when the interval is over.
const MOST: usize = 4096;
/// Events that are read in one go: a guest must not hold the reader. The
/// kernel's queue holds a quarter of that by default.
const AT_ONCE: usize = 65_536;
/// Queues that the kernel gives one user by default.
const USUAL_QUEUES: usize = 128;
/// Queues of this process.
static QUEUES: AtomicUsize = AtomicUsize::new(0);

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What happened since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// Something was written.
    pub changed: bool,
    /// The kernel dropped events.
    pub overflowed: bool,
}

/// Events of an image, or of the directories of an upper dir: readable when
/// there are some.
#[derive(Debug)]
pub struct Wakeups {
    inotify: Queue,
    /// `None` for an image.
    root: Option<OwnedFd>,
    /// Paths of watched directories relative to the root.
    dirs: HashMap<i32, Box<[u8]>>,
    is_partial: bool,
}

impl Wakeups {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the kernel gives no such watch, there is nothing at the path, or
    /// this process has half of the queues that its user may have: other
    /// programs of the host need some too.
    pub fn of(source: &Source) -> io::Result<Self> {
        let mut wakeups = Self {
            inotify: Queue::open(most_queues())?,
            root: None,
            dirs: HashMap::new(),
            is_partial: false,
        };
        match source {
            Source::Image { path, .. } | Source::E2bCow { cow: path, .. } => {
                let events = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
                add_watch(&wakeups.inotify.0, path, events)?;
            }
            Source::Overlay { upper, .. } => wakeups.watch_tree(upper)?,
            Source::Directory { path } => wakeups.watch_tree(path)?,
        }
        Ok(wakeups)
    }

    fn watch_tree(&mut self, root: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.root = Some(rustix::fs::open(root, flags, Mode::empty())?);
        self.watch_below(Box::default());
        Ok(())
    }

    /// Watches a directory and all below it. One that is gone, or that may
    /// not be opened, is left to the scan.
    fn watch_below(&mut self, dir: Box<[u8]>) {
        let mut visits = vec![dir];
        while let Some(dir) = visits.pop() {
            if self.dirs.len() >= MOST {
                self.is_partial = true;
                return;
            }
            let Ok(fd) = self.open(&dir) else { continue };
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let events = WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE
                | WatchFlags::EXCL_UNLINK
                | WatchFlags::ONLYDIR;
            // Listening first: what is made meanwhile is either listed or told.
            let watch = match add_watch(&self.inotify.0, link, events) {
                Ok(watch) => watch,
                // As many as its user may have (`fs.inotify.max_user_watches`).
                Err(Errno::NOSPC) => {
                    self.is_partial = true;
                    return;
                }
                Err(_) => continue,
            };
            self.dirs.insert(watch, dir.clone());
            let entries = Dir::new(fd).into_iter().flatten().map_while(Result::ok);
            let below = entries.filter(|entry| entry.file_type() == FileType::Directory);
            visits.extend(below.filter_map(|entry| {
                let name = entry.file_name().to_bytes();
                (name != b"." && name != b"..").then(|| join(&dir, name))
            }));
        }
    }

    /// Whether there are or were directories that are not listened to for lack
    /// of room.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// A directory of the sandbox, whatever links it has made.
    fn open(&self, dir: &[u8]) -> Result<OwnedFd, Errno> {
        let root = self.root.as_ref().ok_or(Errno::NOENT)?;
        let path: &[u8] = if dir.is_empty() { b"." } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(root, path, flags, Mode::empty(), IN_ROOT)
    }

    /// What happened since it was last asked; never waits.
    pub fn take(&mut self) -> Wake {
        let mut wake = Wake::default();
        let mut new = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = Reader::new(&self.inotify.0, &mut buffer);
        for _ in 0..AT_ONCE {
            let Ok(event) = reader.next() else { break };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                wake.overflowed = true;
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.dirs.remove(&event.wd());
                continue;
            }
            wake.changed = true;
            let appeared = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
            if appeared
                && flags.contains(ReadFlags::ISDIR)
                && let (Some(dir), Some(name)) = (self.dirs.get(&event.wd()), event.file_name())
            {
                new.push(join(dir, name.to_bytes()));
            }
        }
        for dir in new {
            self.watch_below(dir);
        }
        wake
    }
}

impl AsFd for Wakeups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.0.as_fd()
    }
}

/// A queue of the kernel's, one of few.
#[derive(Debug)]
struct Queue(OwnedFd);

impl Queue {
    /// `most`: of this process.
    fn open(most: usize) -> io::Result<Self> {
        let fits = |count: usize| (count < most).then(|| count + 1);
        QUEUES
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|count| {
                io::Error::other(format!(
                    "{count} queues of events are in use, half of fs.inotify.max_user_instances"
                ))
            })?;
        match init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => Ok(Self(fd)),
            Err(errno) => {
                QUEUES.fetch_sub(1, Ordering::Relaxed);
                Err(errno.into())
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        QUEUES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Half of what one user may have.
fn most_queues() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    let limit = limit.ok().and_then(|limit| limit.trim().parse().ok());
    limit.unwrap_or(USUAL_QUEUES) / 2
}

fn join(dir: &[u8], name: &[u8]) -> Box<[u8]> {
    let separator: &[u8] = if dir.is_empty() { b"" } else { b"/" };
    [dir, separator, name].concat().into()
}

#[cfg(test)]
mod tests {
    use super::super::config::ImageFormat;
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const NOTHING: Wake = Wake {
        changed: false,
        overflowed: false,
    };

    #[test]
    fn writes_below_wake_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let [root, outside] = ["root", "outside"].map(|name| dir.path().join(name));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let path = root.clone();
        let mut wakeups = Wakeups::of(&Source::Directory { path }).unwrap();
        assert_eq!(wakeups.take(), NOTHING);
        fs::write(outside.join("file"), "x").unwrap();
        assert_eq!(wakeups.take(), NOTHING);
        for change in [
            &|| fs::write(root.join("a/b/file"), "x").unwrap(),
            &|| fs::create_dir_all(root.join("a/new")).unwrap(),
            &|| fs::write(root.join("a/new/file"), "x").unwrap(),
            &|| fs::remove_file(root.join("a/new/file")).unwrap(),
        ] as [&dyn Fn(); 4]
        {
            change();
            assert!(wakeups.take().changed);
            assert_eq!(wakeups.take(), NOTHING);
        }
    }

    #[test]
    fn writes_to_an_image_wake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        fs::write(&path, "x").unwrap();
        let source = Source::Image {
            path: path.clone(),
            format: ImageFormat::Raw,
        };
        let mut wakeups = Wakeups::of(&source).unwrap();
        assert_eq!(wakeups.take(), NOTHING);
        fs::write(&path, "y").unwrap();
        assert!(wakeups.take().changed);
    }

    #[test]
    fn queues_are_left_to_others() {
        let one = Queue::open(most_queues()).unwrap();
        let error = Queue::open(1).unwrap_err();
        assert!(error.to_string().contains("max_user_instances"), "{error}");
        drop(one);
    }

    /// The kernel keeps 16,384 events by default.
    #[test]
    fn an_overflow_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let mut wakeups = Wakeups::of(&Source::Directory { path }).unwrap();
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        if limit > AT_ONCE {
            println!("skipped: an_overflow_is_told: the queue is very long");
            return;
        }
        let file = dir.path().join("file");
        for _ in 0..=limit / 3 {
            // Three or more events each, of which no two in a row are equal.
            fs::write(&file, "x").unwrap();
            fs::remove_file(&file).unwrap();
        }
        // Told at once, not after as many looks as it takes to read all.
        assert!(wakeups.take().overflowed);
    }
}
