//! The host's addresses, where an interface is and where this program runs, as
//! they change. All interfaces of one network namespace share one look at them.

use sandtrace_sys::addresses::Addresses;
use sandtrace_sys::{clock, netns};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Time between two looks.
const LOOK_US: u64 = 1_000_000;

/// What one interface has to do with.
pub(super) struct Hosts {
    /// That of the interface and this program's own, with the edition that was taken.
    spaces: Vec<(Arc<Mutex<Space>>, u64)>,
    next_us: u64,
}

/// One network namespace.
struct Space {
    addresses: Addresses,
    /// Grows with each change.
    edition: u64,
    looked_us: u64,
}

/// A network namespace's name: the device and inode of its file.
type Name = (u64, u64);

/// All that are in use.
static SPACES: Mutex<BTreeMap<Name, Weak<Mutex<Space>>>> = Mutex::new(BTreeMap::new());

impl Hosts {
    /// An address that cannot be read is told by its range, where that is private.
    pub(super) fn near(namespace: Option<&Path>) -> Self {
        let near = namespace.map(|_| netns::within(namespace, Space::here));
        let near = near.and_then(|near| near.ok()?.ok());
        let spaces = near.into_iter().chain(Space::here().ok());
        Self {
            spaces: spaces.map(|space| (space, 0)).collect(),
            next_us: 0,
        }
    }

    /// The addresses, where they are others than were answered last. Loopback is
    /// not among them: what a sandbox sends there is its own.
    pub(super) fn changed(&mut self, now_us: u64) -> Option<Vec<IpAddr>> {
        if now_us < self.next_us {
            return None;
        }
        self.next_us = now_us + LOOK_US;
        let mut changed = false;
        for (space, taken) in &mut self.spaces {
            let mut space = lock(space);
            space.look(now_us);
            self.next_us = self.next_us.min(space.looked_us + LOOK_US);
            changed |= std::mem::replace(taken, space.edition) != space.edition;
        }
        changed.then(|| self.all())
    }

    fn all(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = Vec::new();
        for (space, _) in &self.spaces {
            all.extend(lock(space).addresses.found());
        }
        all.retain(|ip| !ip.is_loopback());
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Space {
    /// That of the calling thread.
    fn here() -> io::Result<Arc<Mutex<Self>>> {
        let file = std::fs::metadata("/proc/thread-self/ns/net")?;
        let name = (file.dev(), file.ino());
        let mut spaces = lock(&SPACES);
        if let Some(space) = spaces.get(&name).and_then(Weak::upgrade) {
            return Ok(space);
        }
        spaces.retain(|_, space| space.strong_count() > 0);
        let space = Arc::new(Mutex::new(Self {
            addresses: Addresses::open()?,
            edition: 1,
            looked_us: clock::boot_us(),
        }));
        spaces.insert(name, Arc::downgrade(&space));
        Ok(space)
    }

    /// What cannot be read stays as it was.
    fn look(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.looked_us) >= LOOK_US {
            self.looked_us = now_us;
            self.edition += u64::from(self.addresses.look().unwrap_or(false));
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
