//! Counting an interface's frames by flow inside the kernel.
//!
//! The programs are written in C, `bpf/frames.bpf.c`, and committed as clang
//! made them, as those for system calls are. The one for frames is the filter of a
//! packet socket on each interface, which sees what a packet ring would and lets
//! nothing into the socket. It ends with that socket, whatever ends this process, and
//! leaves nothing behind.

mod entry;
#[cfg(test)]
mod floors;
mod layout;
mod release;
mod slots;
#[cfg(test)]
mod storm;

pub use layout::{BpfFlow, BpfFlowId, BpfFlowKey, BpfFrame, BpfFrameLosses, BpfSums};

use super::batch;
use super::load::in_full;
use crate::clock;
use crate::netdev;
use crate::netns::{self, NetnsError};
use crate::ring;
use aya::maps::{HashMap, IterableMap as _, Map, MapData, MapError, ProgramArray, RingBuf};
use aya::programs::{Program, ProgramError, SchedClassifier, SocketFilter};
use aya::{Ebpf, EbpfLoader};
use slots::{Place, Slots};
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The compiled programs.
const OBJECT: &[u8] = aya::include_bytes_aligned!("frames.bpf.o");

/// How large the tables in the kernel are, and what is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfFramesConfig {
    /// Most interfaces at once.
    pub interfaces: u32,
    /// Most flows at once. Entries are allocated as they are needed.
    pub flows: u32,
    /// Most flows of one interface.
    pub flow_share: u32,
    /// Bytes of the ring of frames, a power of two and a multiple of the page size.
    pub ring: u32,
    /// Bytes of the ring that the frames of one interface may take.
    pub ring_share: u32,
    /// How full, in bytes, the ring may be for an interface that has 16 KiB of it, and
    /// in flows the table for one that has 128: the rest is for those that have less.
    pub ring_common: u32,
    /// See [`ring_common`](Self::ring_common).
    pub flow_common: u32,
    /// Bytes that are handed over of a frame, at most 4,096.
    pub snap_length: u32,
    /// A silence this long, in nanoseconds, has the next frame handed over.
    pub pause_ns: Option<u64>,
}

impl Default for BpfFramesConfig {
    fn default() -> Self {
        Self {
            interfaces: 1,
            flows: 65_536,
            flow_share: 65_536,
            ring: 8 << 20,
            ring_share: 8 << 20,
            ring_common: 8 << 20,
            flow_common: 65_536,
            snap_length: 4096,
            pause_ns: None,
        }
    }
}

/// Why an interface's frames cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum BpfFramesError {
    /// There is no such interface in that namespace.
    #[error("no interface {interface} in {namespace}")]
    NoInterface {
        /// Its name.
        interface: String,
        /// The namespace as it was given.
        namespace: String,
    },
    /// bpf(2) is refused.
    #[error(
        "load packet programs: not permitted (needs CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON, or root; lockdown forbids it too)"
    )]
    NotPermitted,
    /// The kernel lacks something.
    #[error("load packet programs: {detail}")]
    Load {
        /// What the loader or the kernel's verifier said.
        detail: String,
    },
    /// The programs loaded but cannot be attached.
    #[error("attach packet programs to {interface}: {source}")]
    Attach {
        /// To what.
        interface: String,
        /// The cause.
        source: io::Error,
    },
    /// As many interfaces are watched as there are places for.
    #[error("attach packet programs: as many interfaces are watched as can be at once")]
    Full,
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// The programs and tables that many interfaces share.
pub struct BpfFrames {
    // Holds the shared program and the table through which it is called.
    _programs: Ebpf,
    shared: MapData,
    release: OwnedFd,
    flows: HashMap<MapData, BpfFlowId, [u8; layout::FLOW_BYTES]>,
    slots: Slots,
}

/// Where frames are handed over, of all interfaces in one order.
pub struct BpfFramesReader {
    hub: Arc<BpfFrames>,
    ring: RingBuf<MapData>,
}

/// One interface whose frames are counted, until it is dropped.
pub struct BpfTap {
    hub: Arc<BpfFrames>,
    place: Place,
    /// Whose filter the program is. None only while it is made or dropped.
    socket: Option<OwnedFd>,
}

impl BpfFrames {
    /// Loads the programs; nothing is watched yet.
    ///
    /// # Errors
    /// When the kernel refuses or lacks what the programs need (Linux 5.14).
    pub fn load(config: BpfFramesConfig) -> Result<(Arc<Self>, BpfFramesReader), BpfFramesError> {
        let mut programs = load(config)?;
        let shared = shared(&mut programs)?;
        let release = release(&mut programs)?;
        let slots = programs.take_map("slots");
        let slots = slots.ok_or_else(|| wrong("slots", &"missing"))?;
        let slots = Slots::of(slots, config.interfaces).map_err(|error| wrong("slots", &error))?;
        let ring = map(&mut programs, "frames")?;
        let hub = Arc::new(Self {
            shared,
            release,
            flows: map(&mut programs, "flows")?,
            slots,
            _programs: programs,
        });
        // Before 5.14 no entry can be taken out of a table in one step.
        hub.remove(&[0; layout::KEY_BYTES])
            .map_err(|error| wrong("flows", &format!("{error} (needs Linux 5.14)")))?;
        let reader = BpfFramesReader {
            hub: Arc::clone(&hub),
            ring,
        };
        Ok((hub, reader))
    }

    /// Attaches to `interface` inside `namespace` (`None`: the caller's).
    ///
    /// # Errors
    /// When the interface does not exist, as many as can be are watched, or
    /// the kernel refuses.
    pub fn attach(
        self: &Arc<Self>,
        interface: &str,
        namespace: Option<&Path>,
    ) -> Result<BpfTap, BpfFramesError> {
        netns::within(namespace, || {
            let Ok(Some(index)) = netdev::index(interface) else {
                return Err(BpfFramesError::NoInterface {
                    interface: interface.to_owned(),
                    namespace: netns::describe(namespace),
                });
            };
            let place = self.slots.take().ok_or(BpfFramesError::Full)?;
            let mut tap = BpfTap {
                hub: Arc::clone(self),
                place,
                socket: None,
            };
            tap.socket = Some(tap.open(interface, index)?);
            Ok(tap)
        })?
    }

    /// Calls `each` with every flow and how many of its frames were handed
    /// over before its sums were what they are.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn flows(&self, mut each: impl FnMut(BpfFlow, u32)) -> io::Result<()> {
        let fd = self.flows.map().fd();
        let ahead_ns = clock::boot_ahead_ns();
        batch::read(fd, layout::KEY_BYTES, layout::FLOW_BYTES, |key, value| {
            if let Some((flow, events)) = BpfFlow::parse(key, value, ahead_ns) {
                each(flow, events);
            }
        })
    }

    fn release_program(&self) -> BorrowedFd<'_> {
        self.release.as_fd()
    }

    /// Removes a flow of a watch that is over.
    ///
    /// # Errors
    /// When the kernel refuses; there being no such flow is none.
    pub fn remove(&self, id: &BpfFlowId) -> io::Result<()> {
        if batch::take::<{ layout::FLOW_BYTES }>(self.flows.map().fd(), id)?.is_some() {
            self.slots.removed_of_nobody();
        }
        Ok(())
    }
}

impl BpfFramesReader {
    /// Calls `each` with up to `most` frames that were handed over, in their
    /// order. Answers how many. Whoever reads some should look again within
    /// [`Self::LOOK_AGAIN`]: the kernel wakes at most once a millisecond.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(&BpfFrame<'_>)) -> usize {
        let ahead_ns = clock::boot_ahead_ns();
        for read in 0..most {
            let Some(item) = self.ring.next() else {
                return read;
            };
            if let Some(frame) = BpfFrame::parse(&item, ahead_ns) {
                each(&frame);
                self.hub.slots.taken(frame.slot, frame.owner, item.len());
            }
        }
        most
    }

    /// How long frames may lie in the ring before somebody is woken for them
    /// who has just read.
    pub const LOOK_AGAIN: Duration = Duration::from_millis(2);

    /// What the frames come from.
    #[must_use]
    pub fn hub(&self) -> &Arc<BpfFrames> {
        &self.hub
    }
}

impl BpfTap {
    /// The number of this watch, which no other has.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.place.owner
    }

    /// Whether frames of it were handed over that nobody has read yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.hub.slots.waits(self.place)
    }

    /// In error when the interface went down or away; never readable.
    #[must_use]
    pub fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// The error that [`alarm`](Self::alarm) is in, if any, which is thereby forgotten.
    pub fn take_error(&self) -> Option<io::Error> {
        ring::take_error(self.socket.as_ref()?)
    }

    /// Counts and hands over nothing from now on. What was until now stays.
    pub fn close(&self) {
        self.hub.slots.close(self.place);
    }

    /// Takes a flow out of the table: its sums at the end, and how many of its
    /// frames were handed over. A frame that is being counted this moment may be in
    /// neither, so this is for when nothing is counted any more; see
    /// [`release`](Self::release).
    ///
    /// # Errors
    /// When the kernel refuses; there being no such flow is none.
    pub fn take(&self, id: &BpfFlowId) -> io::Result<Option<(BpfFlow, u32)>> {
        let fd = self.hub.flows.map().fd();
        let Some(value) = batch::take::<{ layout::FLOW_BYTES }>(fd, id)? else {
            return Ok(None);
        };
        self.hub.slots.removed(self.place);
        Ok(BpfFlow::parse(id, &value, clock::boot_ahead_ns()))
    }

    /// What was lost since the programs were attached.
    #[must_use]
    pub fn losses(&self) -> BpfFrameLosses {
        self.hub.slots.losses(self.place)
    }

    fn open(&self, interface: &str, index: u32) -> Result<OwnedFd, BpfFramesError> {
        let Place { index: slot, owner } = self.place;
        let program = entry::load(self.hub.shared.fd().as_fd(), slot, owner);
        let socket = program.and_then(|program| ring::filtered(&program, index));
        socket.map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => BpfFramesError::NotPermitted,
            _ => BpfFramesError::Attach {
                interface: interface.to_owned(),
                source,
            },
        })
    }
}

impl Drop for BpfTap {
    fn drop(&mut self) {
        // Nothing is written to the place when the socket is gone.
        drop(self.socket.take());
        self.hub.slots.give_back(self.place);
    }
}

impl AsFd for BpfFramesReader {
    /// Readable when there are frames to [`read`](Self::read).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

fn load(config: BpfFramesConfig) -> Result<Ebpf, BpfFramesError> {
    let pause_ns = config.pause_ns.unwrap_or(0);
    let ring_share = u64::from(config.ring_share.min(config.ring));
    let flow_share = u64::from(config.flow_share.min(config.flows));
    let ring_common = u64::from(config.ring_common.min(config.ring));
    let flow_common = u64::from(config.flow_common.min(config.flows));
    EbpfLoader::new()
        .map_max_entries("flows", config.flows)
        .map_max_entries("frames", config.ring)
        .map_max_entries("slots", config.interfaces + 1)
        .override_global("pause_ns", &pause_ns, true)
        .override_global("snap_length", &config.snap_length, true)
        .override_global("ring_share", &ring_share, true)
        .override_global("flow_share", &flow_share, true)
        .override_global("ring_common", &ring_common, true)
        .override_global("flow_common", &flow_common, true)
        .override_global("everyone", &config.interfaces, true)
        .load(OBJECT)
        .map_err(|error| refused(&error))
}

/// Loads the program for frames and puts it into its table.
fn shared(programs: &mut Ebpf) -> Result<MapData, BpfFramesError> {
    let failed = |error: MapError| wrong("shared", &error);
    let mut map = programs
        .take_map("shared")
        .ok_or_else(|| wrong("shared", &"missing"))?;
    let mut table = ProgramArray::try_from(&mut map).map_err(failed)?;
    let program: &mut SocketFilter = program(programs, "frame")?;
    program.load().map_err(|error| refused(&error))?;
    let fd = program.fd().map_err(|error| wrong("frame", &error))?;
    table.set(0, fd, 0).map_err(failed)?;
    match map {
        Map::ProgramArray(shared) => Ok(shared),
        _ => Err(wrong("shared", &"another kind of table")),
    }
}

/// Loads the program that lets flows go.
fn release(programs: &mut Ebpf) -> Result<OwnedFd, BpfFramesError> {
    let program: &mut SchedClassifier = program(programs, "release")?;
    program.load().map_err(|error| refused(&error))?;
    let fd = program.fd().map_err(|error| wrong("release", &error))?;
    let fd = fd.as_fd().try_clone_to_owned();
    fd.map_err(|error| wrong("release", &error))
}

fn program<'a, T>(programs: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, BpfFramesError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = programs
        .program_mut(name)
        .ok_or_else(|| wrong(name, &"missing"))?;
    program.try_into().map_err(|error| wrong(name, &error))
}

fn map<T>(programs: &mut Ebpf, name: &'static str) -> Result<T, BpfFramesError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = programs
        .take_map(name)
        .ok_or_else(|| wrong(name, &"missing"))?;
    T::try_from(map).map_err(|error| wrong(name, &error))
}

/// A part of the object is not what it should be: a bug of ours.
fn wrong(part: &'static str, detail: &dyn std::fmt::Display) -> BpfFramesError {
    BpfFramesError::Load {
        detail: format!("{part}: {detail}"),
    }
}

fn refused(error: &dyn Error) -> BpfFramesError {
    let detail = in_full(error);
    if detail.contains("os error 1)") {
        BpfFramesError::NotPermitted
    } else {
        BpfFramesError::Load { detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Packet sockets of this thread's network namespace.
    fn sockets() -> usize {
        let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        sockets.lines().skip(1).count()
    }

    /// Runs `act` in a network namespace of its own, where nobody else attaches anything.
    pub(super) fn in_own_network(test: &str, act: fn()) {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run as root");
            println!("skipped: {test}: needs root");
            return;
        }
        std::thread::spawn(move || {
            let flags = rustix::thread::UnshareFlags::NEWNET;
            // SAFETY: only this thread's network namespace changes; no descriptors are shared.
            unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
            act();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn nothing_stays_on_the_interface() {
        in_own_network("nothing_stays_on_the_interface", || {
            let (hub, _reader) = BpfFrames::load(BpfFramesConfig::default()).unwrap();
            let attached = hub.attach("lo", None).unwrap();
            assert_eq!(sockets(), 1);
            let full = hub.attach("lo", None);
            assert!(matches!(full, Err(BpfFramesError::Full)));
            let owner = attached.owner();
            drop(attached);
            assert_eq!(sockets(), 0);
            assert_ne!(hub.attach("lo", None).unwrap().owner(), owner);
            let missing = hub.attach("none-such", None);
            let error = missing.err().unwrap().to_string();
            assert_eq!(error, "no interface none-such in this network namespace");
        });
    }
}
