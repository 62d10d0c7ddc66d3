//! One lab: its namespace, its directory and its place in the registry.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::statfs;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{LabError, doing};
use crate::process::Process;
use crate::registry::{self, Belongings, Entry};
use crate::{netns, programs};

/// What can be chosen about a lab.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabConfig {
    /// Where the lab's directory is made; the system's place for temporary files by default.
    pub parent: Option<PathBuf>,
}

/// A place for sandboxes and their outside world. Whatever was made is removed once the lab and
/// all its sandboxes are dropped.
#[derive(Debug)]
pub struct Lab {
    pub(crate) inner: Arc<Inner>,
}

impl Lab {
    /// Makes a lab with a random id.
    ///
    /// # Errors
    /// Without root, without iproute2, or where the kernel refuses a network namespace.
    pub fn new(config: &LabConfig) -> Result<Self, LabError> {
        require_root()?;
        programs::missing(&[programs::IP])?;
        let inner = Inner::new(config)?;
        let _lock = registry::lock().map_err(doing("lock the registry of labs"))?;
        netns::add(&inner.netns)?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The random part of every name this lab gives.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The named network namespace of the outside world; taps and host ends of links are in it.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.inner.netns
    }

    /// The lab's directory, for images and whatever else may go with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Removes what labs left behind whose process is gone; returns how many there were.
    ///
    /// # Errors
    /// Without root, or when something cannot be removed.
    pub fn sweep() -> Result<usize, LabError> {
        require_root()?;
        let _lock = registry::lock().map_err(doing("lock the registry of labs"))?;
        let orphans = registry::orphans().map_err(doing("list left-over labs"))?;
        for entry in &orphans {
            clean_up(entry)?;
        }
        Ok(orphans.len())
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    id: String,
    netns: String,
    dir: PathBuf,
    entry: Mutex<Entry>,
    names: AtomicU32,
}

impl Inner {
    fn new(config: &LabConfig) -> Result<Self, LabError> {
        let id = random_id().map_err(doing("draw a random id"))?;
        let netns = format!("stl-{id}");
        let parent = config.parent.clone().unwrap_or_else(temporary);
        let dir = parent.join(&netns);
        let owner = Process::me().map_err(doing("read /proc/self/stat"))?;
        let belongings = Belongings {
            owner,
            dir: dir.clone(),
            namespaces: vec![netns.clone()],
            children: Vec::new(),
        };
        let entry = Entry::create(&id, belongings).map_err(doing("register the lab"))?;
        let (entry, names) = (Mutex::new(entry), AtomicU32::new(0));
        let inner = Self {
            id,
            netns,
            dir,
            entry,
            names,
        };
        fs::create_dir(&inner.dir).map_err(doing(format!("create {}", inner.dir.display())))?;
        Ok(inner)
    }

    pub(crate) fn netns(&self) -> &str {
        &self.netns
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A name that no other thing in this lab has, short enough for an interface.
    pub(crate) fn name(&self, kind: &str) -> String {
        format!("{kind}{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A new directory of that name in the lab's.
    pub(crate) fn make_dir(&self, name: &str) -> Result<PathBuf, LabError> {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).map_err(doing(format!("create {}", dir.display())))?;
        Ok(dir)
    }

    /// Makes one more namespace that belongs to this lab.
    pub(crate) fn add_netns(&self, suffix: &str) -> Result<String, LabError> {
        let name = format!("{}-{suffix}", self.netns);
        self.change(|belongings| belongings.namespaces.push(name.clone()))?;
        let _lock = registry::lock().map_err(doing("lock the registry of labs"))?;
        netns::add(&name)?;
        Ok(name)
    }

    pub(crate) fn remove_netns(&self, name: &str) {
        if netns::remove(name).is_ok() {
            let _ = self.change(|belongings| belongings.namespaces.retain(|other| other != name));
        }
    }

    pub(crate) fn adopt(&self, pid: u32) -> Result<(), LabError> {
        let child = Process::with_pid(pid).map_err(doing(format!("read /proc/{pid}/stat")))?;
        self.change(|belongings| belongings.children.push(child))
    }

    pub(crate) fn disown(&self, pid: u32) {
        let _ = self.change(|belongings| belongings.children.retain(|child| child.pid != pid));
    }

    fn change(&self, change: impl FnOnce(&mut Belongings)) -> Result<(), LabError> {
        self.entry()
            .change(change)
            .map_err(doing("register what the lab makes"))
    }

    fn entry(&self) -> MutexGuard<'_, Entry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What cannot be removed now stays registered for a sweep.
        let _ = clean_up(&self.entry());
    }
}

fn require_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(LabError::NotRoot)
    }
}

fn clean_up(entry: &Entry) -> Result<(), LabError> {
    let Belongings {
        dir,
        namespaces,
        children,
        ..
    } = &entry.belongings;
    children.iter().for_each(Process::kill);
    namespaces.iter().try_for_each(|name| netns::remove(name))?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(doing(format!("remove {}", dir.display()))(error));
        }
        _ => {}
    }
    entry.remove().map_err(doing("unregister the lab"))
}

fn random_id() -> io::Result<String> {
    let bytes: [u8; 4] = {
        let mut bytes = [0; 4];
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        bytes
    };
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}

/// A place whose file system can carry the upper directory of an overlay; inside a container
/// the usual one is an overlay itself.
fn temporary() -> PathBuf {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    let candidates = [
        std::env::temp_dir(),
        "/var/tmp".into(),
        "/run".into(),
        "/dev/shm".into(),
    ];
    let usable = |path: &PathBuf| statfs(path).is_ok_and(|fs| fs.f_type != OVERLAYFS_SUPER_MAGIC);
    candidates
        .into_iter()
        .find(usable)
        .unwrap_or_else(std::env::temp_dir)
}
