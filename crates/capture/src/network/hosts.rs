//! The host's addresses, where an interface is and where this program runs, as
//! they change. All interfaces of one network namespace share one look at them.

use sandtrace_sys::addresses::Addresses;
use sandtrace_sys::clock;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
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
    /// Of the interface's namespace and this thread's. An address that cannot be
    /// read is told by its range, where that is private.
    pub(super) fn near(near: io::Result<Nearby>) -> Self {
        let mut spaces: Vec<_> = near.into_iter().chain(Nearby::here()).collect();
        spaces.dedup_by(|one, other| Arc::ptr_eq(&one.0, &other.0));
        Self {
            spaces: spaces.into_iter().map(|near| (near.0, 0)).collect(),
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

/// The addresses of one network namespace.
pub(super) struct Nearby(Arc<Mutex<Space>>);

impl Nearby {
    /// Those of the calling thread's.
    pub(super) fn here() -> io::Result<Self> {
        let file = std::fs::metadata("/proc/thread-self/ns/net")?;
        let name = (file.dev(), file.ino());
        if let Some(space) = lock(&SPACES).get(&name).and_then(Weak::upgrade) {
            return Ok(Self(space));
        }
        // Outside the lock: many sandboxes begin at once. Of two for the same
        // namespace the later one is shared from then on.
        let space = Arc::new(Mutex::new(Space {
            addresses: Addresses::open()?,
            edition: 1,
            looked_us: clock::boot_us(),
        }));
        let mut spaces = lock(&SPACES);
        spaces.retain(|_, space| space.strong_count() > 0);
        spaces.insert(name, Arc::downgrade(&space));
        Ok(Self(space))
    }
}

impl Space {
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
