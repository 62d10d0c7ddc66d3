//! Counting an interface's frames by flow inside the kernel, at tc (tcx).
//!
//! The programs are written in C, `bpf/frames.bpf.c`, and committed as clang
//! made them, as those for system calls are. They are attached by a link: it
//! ends with its descriptor, whatever ends this process, and leaves neither a
//! qdisc nor a filter behind. Links at tc need Linux 6.6.

mod layout;

pub use layout::{BpfFlow, BpfFlowId, BpfFlowKey, BpfFrame, BpfFrameLosses, BpfSums};

use super::batch;
use super::load::in_full;
use crate::netdev;
use crate::netns::{self, NetnsError};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError, RingBuf};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// The compiled programs.
const OBJECT: &[u8] = aya::include_bytes_aligned!("frames.bpf.o");

/// How large the tables in the kernel are, and what is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfFramesConfig {
    /// Most flows at once. Entries are allocated as they are needed.
    pub flows: u32,
    /// Bytes of the ring of frames, a power of two and a multiple of the page size.
    pub ring: u32,
    /// Bytes that are handed over of a frame, at most 4,096.
    pub snap_length: u32,
    /// A silence this long, in nanoseconds, has the next frame handed over.
    pub pause_ns: Option<u64>,
}

impl Default for BpfFramesConfig {
    fn default() -> Self {
        Self {
            flows: 65_536,
            ring: 8 << 20,
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
        "load packet programs: not permitted (needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or root; lockdown forbids it too)"
    )]
    NotPermitted,
    /// The kernel lacks something.
    #[error("load packet programs: {detail}")]
    Load {
        /// What the loader or the kernel's verifier said.
        detail: String,
    },
    /// The programs loaded but cannot be attached.
    #[error("attach packet programs to {interface}: {detail} (needs tcx: Linux 6.6 or later)")]
    Attach {
        /// To what.
        interface: String,
        /// The cause.
        detail: String,
    },
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// The programs on one interface. Dropping it detaches them and frees the tables.
pub struct BpfFrames {
    // Holds the programs' links.
    _programs: Ebpf,
    flows: HashMap<MapData, BpfFlowId, [u8; layout::FLOW_BYTES]>,
    losses: Array<MapData, [u8; layout::LOSSES_BYTES]>,
    frames: RingBuf<MapData>,
}

impl BpfFrames {
    /// Attaches to `interface` inside `namespace` (`None`: the caller's).
    ///
    /// # Errors
    /// When the interface does not exist, or the kernel refuses or lacks what
    /// the programs need: links at tc (6.6) and its own type information.
    pub fn attach(
        interface: &str,
        namespace: Option<&Path>,
        config: BpfFramesConfig,
    ) -> Result<Self, BpfFramesError> {
        netns::within(namespace, || {
            let index = netdev::index(interface);
            if !matches!(index, Ok(Some(_))) {
                return Err(BpfFramesError::NoInterface {
                    interface: interface.to_owned(),
                    namespace: netns::describe(namespace),
                });
            }
            let mut programs = load(config)?;
            // Before any other program sees what comes from the sandbox, and
            // after all that may drop what goes to it: as packet sockets do.
            let ends = [
                ("from_sandbox", TcAttachType::Ingress, LinkOrder::first()),
                ("to_sandbox", TcAttachType::Egress, LinkOrder::last()),
            ];
            for (name, end, order) in ends {
                attach(&mut programs, name, interface, end, order)?;
            }
            Self::of(programs)
        })?
    }

    fn of(mut programs: Ebpf) -> Result<Self, BpfFramesError> {
        Ok(Self {
            flows: map(&mut programs, "flows")?,
            losses: map(&mut programs, "losses")?,
            frames: map(&mut programs, "frames")?,
            _programs: programs,
        })
    }

    /// Calls `each` with up to `most` frames that were handed over, in their
    /// order. Answers how many.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(&BpfFrame<'_>)) -> usize {
        for read in 0..most {
            let Some(item) = self.frames.next() else {
                return read;
            };
            if let Some(frame) = BpfFrame::parse(&item) {
                each(&frame);
            }
        }
        most
    }

    /// Calls `each` with every flow and how many of its frames were handed
    /// over before its sums were what they are.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn flows(&self, mut each: impl FnMut(BpfFlow, u64)) -> io::Result<()> {
        let fd = self.flows.map().fd();
        batch::read(fd, layout::KEY_BYTES, layout::FLOW_BYTES, |key, value| {
            if let Some((flow, events)) = BpfFlow::parse(key, value) {
                each(flow, events);
            }
        })
    }

    /// Takes a flow out of the table: its sums at the end, and how many of its
    /// frames were handed over.
    ///
    /// # Errors
    /// When the kernel refuses; there being no such flow is none.
    pub fn take(&self, id: &BpfFlowId) -> io::Result<Option<(BpfFlow, u64)>> {
        let value = batch::take::<{ layout::FLOW_BYTES }>(self.flows.map().fd(), id)?;
        Ok(value.and_then(|value| BpfFlow::parse(id, &value)))
    }

    /// What was lost since the programs were attached.
    #[must_use]
    pub fn losses(&self) -> BpfFrameLosses {
        let value = self.losses.get(&0, 0);
        value.map_or_else(
            |_| BpfFrameLosses::default(),
            |value| BpfFrameLosses::parse(&value),
        )
    }
}

impl AsFd for BpfFrames {
    /// Readable when there are frames to [`read`](Self::read).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frames.as_fd()
    }
}

fn load(config: BpfFramesConfig) -> Result<Ebpf, BpfFramesError> {
    let pause_ns = config.pause_ns.unwrap_or(0);
    EbpfLoader::new()
        .map_max_entries("flows", config.flows)
        .map_max_entries("frames", config.ring)
        .override_global("pause_ns", &pause_ns, true)
        .override_global("snap_length", &config.snap_length, true)
        .load(OBJECT)
        .map_err(|error| refused(&error))
}

fn attach(
    programs: &mut Ebpf,
    name: &'static str,
    interface: &str,
    end: TcAttachType,
    order: LinkOrder,
) -> Result<(), BpfFramesError> {
    let program = programs
        .program_mut(name)
        .ok_or_else(|| wrong(name, &"missing"))?;
    let program: &mut SchedClassifier = program.try_into().map_err(|error| wrong(name, &error))?;
    program.load().map_err(|error| refused(&error))?;
    let attached = program.attach_with_options(interface, end, TcAttachOptions::TcxOrder(order));
    attached
        .map(|_| ())
        .map_err(|error: ProgramError| BpfFramesError::Attach {
            interface: interface.to_owned(),
            detail: in_full(&error),
        })
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

    fn programs_on_lo() -> [usize; 2] {
        [TcAttachType::Ingress, TcAttachType::Egress]
            .map(|end| SchedClassifier::query_tcx("lo", end).unwrap().1.len())
    }

    #[test]
    fn nothing_stays_on_the_interface() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run as root");
            println!("skipped: nothing_stays_on_the_interface: needs root");
            return;
        }
        // In a namespace of its own, where nobody else attaches anything.
        std::thread::spawn(|| {
            let flags = rustix::thread::UnshareFlags::NEWNET;
            // SAFETY: only this thread's network namespace changes; no descriptors are shared.
            unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
            let attached = BpfFrames::attach("lo", None, BpfFramesConfig::default()).unwrap();
            assert_eq!(programs_on_lo(), [1, 1]);
            drop(attached);
            assert_eq!(programs_on_lo(), [0, 0]);
            let missing = BpfFrames::attach("none-such", None, BpfFramesConfig::default());
            let error = missing.err().unwrap().to_string();
            assert_eq!(error, "no interface none-such in this network namespace");
        })
        .join()
        .unwrap();
    }
}
