//! Programs and tables that count the frames of many interfaces.
//!
//! One thread reads for all, and tells each interface's collector what is its.

use super::clocks::Clocks;
use super::collector::NetworkCollector;
use super::source::pause_ns;
use crate::Observer;
use sandtrace_sys::bpf::{
    BpfFlow, BpfFrame, BpfFrames, BpfFramesConfig, BpfFramesError, BpfFramesReader,
};
use sandtrace_wire::FlowConfig;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Most interfaces of one hub, a page of the kernel's memory for 32 of them.
const INTERFACES: u32 = 4096;
/// Bytes of the ring. One interface may fill an eighth of it, those that fill it most
/// together a half.
const RING: u32 = 16 << 20;
/// Most flows of all interfaces, shared out as the ring is. Entries of 512 bytes are
/// allocated as they are needed, 16 bytes for each are taken at once.
const FLOWS: u32 = 1 << 18;

/// Where interfaces are attached.
#[derive(Clone)]
pub struct NetworkHub {
    frames: Arc<BpfFrames>,
    flow_share: u32,
}

/// Where their frames are read.
pub struct NetworkHubReader(BpfFramesReader);

/// A frame that was read, and when.
pub struct Heard<'a> {
    pub(super) frame: &'a BpfFrame<'a>,
    pub(super) clocks: Clocks,
}

/// A frame that was kept until somebody can hear it.
pub struct Kept {
    frame: BpfFrame<'static>,
    clocks: Clocks,
    captured: Vec<u8>,
}

/// Sums of one flow.
pub struct Counts {
    pub(super) flow: BpfFlow,
    pub(super) events: u32,
}

impl NetworkHub {
    /// Loads the programs. `flows` are the settings of every interface's flow table.
    ///
    /// # Errors
    /// When the kernel refuses them or lacks what they need.
    pub fn open(
        flows: &FlowConfig,
        snap_length: u32,
    ) -> Result<(Self, NetworkHubReader), BpfFramesError> {
        let flow_share = u32::try_from(flows.max_flows).map_or(FLOWS / 8, |it| it.min(FLOWS / 8));
        let (frames, reader) = BpfFrames::load(BpfFramesConfig {
            interfaces: INTERFACES,
            flows: FLOWS,
            flow_share,
            flow_common: FLOWS / 2,
            ring: RING,
            ring_share: RING / 8,
            ring_common: RING / 2,
            snap_length,
            pause_ns: pause_ns(flows),
        })?;
        Ok((Self { frames, flow_share }, NetworkHubReader(reader)))
    }

    pub(super) fn frames(&self) -> &Arc<BpfFrames> {
        &self.frames
    }

    pub(super) fn flow_share(&self) -> u32 {
        self.flow_share
    }
}

impl Heard<'_> {
    /// A copy of it.
    #[must_use]
    pub fn keep(&self) -> Kept {
        Kept {
            frame: self.frame.with_captured(&[]),
            clocks: self.clocks,
            captured: self.frame.captured.to_vec(),
        }
    }
}

impl Kept {
    /// Calls `hear` with the frame.
    pub fn tell(&self, hear: impl FnOnce(&Heard<'_>)) {
        let frame = &self.frame.with_captured(&self.captured);
        let clocks = self.clocks;
        hear(&Heard { frame, clocks });
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.captured.len()
    }
}

impl NetworkHubReader {
    /// How soon after a read that found frames there must be another.
    pub const LOOK_AGAIN: Duration = BpfFramesReader::LOOK_AGAIN;

    /// Calls `each` with the number of a collector and a frame for it, for up
    /// to `most` frames. Answers how many there were.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(u32, &Heard<'_>)) -> usize {
        let clocks = Clocks::read();
        self.0
            .read(most, |frame| each(frame.owner, &Heard { frame, clocks }))
    }

    /// Calls `each` with the number of a collector and sums for it, for every
    /// flow in the table. Where it answers that there is no such collector, the
    /// flow is removed.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn read_sums(&self, mut each: impl FnMut(u32, &Counts) -> bool) -> io::Result<()> {
        let mut stale = Vec::new();
        let hub = self.0.hub();
        hub.flows(|flow, events| {
            if !each(flow.owner(), &Counts { flow, events }) {
                stale.push(flow.id);
            }
        })?;
        stale.iter().try_for_each(|id| hub.remove(id))
    }
}

impl AsFd for NetworkHubReader {
    /// Readable when there are frames.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What whoever reads a hub tells.
impl NetworkCollector {
    /// Its number, where it is one of many that a hub counts for.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.shared().map(super::counted::Counted::number)
    }

    /// Takes in a frame.
    pub fn hear(&mut self, heard: &Heard<'_>, observer: &mut dyn Observer) {
        self.look_at_hosts(heard.clocks.read_us());
        self.with_shared(observer, |counted, flows, sink| {
            counted.hear(heard.frame, heard.clocks, flows, sink);
            Ok(())
        });
    }

    /// Leaves out a frame, as a full ring would: the observer has too much
    /// already. It is told as lost.
    pub fn miss(&mut self, heard: &Heard<'_>, observer: &mut dyn Observer) {
        self.with_shared(observer, |counted, flows, sink| {
            counted.miss(heard.frame, heard.clocks, flows, sink);
            Ok(())
        });
    }

    /// Takes in sums.
    pub fn take_counts(&mut self, counts: &Counts, observer: &mut dyn Observer) {
        self.with_shared(observer, |counted, flows, sink| {
            counted.take_sum(&counts.flow, counts.events, flows, sink)
        });
    }

    /// Takes in the last sums, after [`stop`](Self::stop) and when every frame
    /// was read that was handed over before.
    pub fn take_last_counts(&mut self, observer: &mut dyn Observer) {
        self.with_shared(observer, |counted, flows, sink| {
            counted.take_last_sums(flows, sink)
        });
    }
}
