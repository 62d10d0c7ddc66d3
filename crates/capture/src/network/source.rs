//! Where frames come from: a packet ring, or eBPF programs that count.

use super::clocks::Clocks;
use super::collector::{NetworkError, NetworkTarget};
use super::counted::{Counted, Lost};
use super::evidence::Evidence;
use super::pcapng::EvidenceFrame;
use super::standing::Look;
use sandtrace_sys::bpf::{BpfFrames, BpfFramesConfig, BpfFramesError};
use sandtrace_sys::ring::{PacketRing, RawPacket, RingConfig};
use sandtrace_wire::{Direction, FlowConfig, FlowSink, FlowTable, Packet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Blocks read in one go, so that timers are not starved by a flood.
const BLOCKS_AT_ONCE: usize = 32;
/// Frames read in one go from the programs' ring.
const FRAMES_AT_ONCE: usize = 65_536;
/// Length of an 802.1Q tag: the kernel strips it from the frame, the interface counted it.
const VLAN_TAG_BYTES: u32 = 4;
/// An interface may count a frame, a veth does, before a ring has it, and a timer be late.
const RING_SETTLES_US: u64 = 40_000;
/// The same for the programs' sums, which are read right before they are compared.
const SUMS_SETTLE_US: u64 = 20_000;
/// The same where many share them, and they are read each second for all.
const SHARED_SUMS_SETTLE_US: u64 = 3_000_000;
/// The programs' ring takes frames that say more than a number, and so needs a
/// quarter of what a ring of all frames does; at least this much.
const LEAST_FRAMES_RING: u32 = 256 << 10;

/// How frames are to be captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// A packet ring, but where programs of many interfaces are given those if they work.
    #[default]
    Auto,
    /// A packet ring with every frame.
    AfPacket,
    /// Programs that count, and hand over what says more.
    Ebpf,
}

/// What captures an interface, and why that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendChosen {
    /// `af_packet` or `ebpf`.
    pub name: &'static str,
    /// Why.
    pub reason: String,
}

pub(super) enum Source {
    Ring(PacketRing),
    Counted(Box<Counted>),
}

impl Source {
    /// Opens what was asked for. Frames are kept from here on, read or not.
    pub(super) fn open(target: &NetworkTarget) -> Result<(Self, BackendChosen), NetworkError> {
        let netns = target.netns.as_deref();
        let ring = || PacketRing::open(&target.interface, netns, ring_config(target));
        let ring = || ring().map(Self::Ring);
        let shares = target.hub.is_some() && target.evidence.is_none();
        let chosen = |name, reason: &str| BackendChosen {
            name,
            reason: reason.to_owned(),
        };
        match target.backend {
            Backend::Ebpf if target.evidence.is_some() => Err(NetworkError::EvidenceNeedsRing),
            Backend::Ebpf => Ok((counted(target)?, chosen("ebpf", "asked for"))),
            Backend::AfPacket => Ok((ring()?, chosen("af_packet", "asked for"))),
            Backend::Auto if shares => match counted(target) {
                Ok(counted) => {
                    let why = "shared with the other sandboxes, and works here";
                    Ok((counted, chosen("ebpf", why)))
                }
                Err(refused) => {
                    let why = format!("eBPF does not work: {refused}");
                    Ok((ring()?, chosen("af_packet", &why)))
                }
            },
            Backend::Auto => {
                let why = "sees every frame, and works here";
                Ok((ring()?, chosen("af_packet", why)))
            }
        }
    }

    /// Reads what the kernel has handed over. Answers how many frames.
    pub(super) fn read(
        &mut self,
        flows: &mut FlowTable,
        evidence: Option<&mut Evidence>,
        sink: &mut dyn FlowSink,
    ) -> usize {
        match self {
            Self::Ring(ring) => read_ring(ring, flows, evidence, sink),
            Self::Counted(counted) => counted.read(FRAMES_AT_ONCE, flows, sink),
        }
    }

    /// Takes in what was only counted. A failure shows in the reconciliation.
    pub(super) fn take_sums(&mut self, flows: &mut FlowTable, sink: &mut dyn FlowSink) {
        let _shows_at_the_end = match self {
            Self::Ring(_) => Ok(()),
            // Those of many are read for all at once.
            Self::Counted(counted) if counted.reader().is_none() => {
                counted.part(Clocks::read(), flows, sink)
            }
            Self::Counted(counted) => counted.take_sums(flows, sink),
        };
    }

    /// Whether [`take_sums`](Self::take_sums) has anything to take in.
    pub(super) fn reads_sums(&self) -> bool {
        matches!(self, Self::Counted(counted) if counted.reader().is_some())
    }

    /// Frames that were lost since this was last asked.
    pub(super) fn lost(&mut self) -> Lost {
        match self {
            Self::Ring(ring) => Lost {
                frames: ring.statistics().map_or(0, |statistics| statistics.drops),
                ..Lost::default()
            },
            Self::Counted(counted) => counted.lost(),
        }
    }

    /// Whether there are frames that were not read yet.
    pub(super) fn waits(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.waits(),
            Self::Counted(counted) => counted.waits(),
        }
    }

    /// How long after a moment all frames from before it can be in the flows.
    pub(super) fn settles_after_us(&self) -> u64 {
        match self {
            // A block that nothing fills is closed by time.
            Self::Ring(ring) => RING_SETTLES_US + ring.retires_after_us(),
            Self::Counted(counted) if counted.reader().is_some() => SUMS_SETTLE_US,
            Self::Counted(_) => SHARED_SUMS_SETTLE_US,
        }
    }

    /// Whether they are, `age_us` after the look.
    pub(super) fn has_settled(&self, look: &Look, age_us: u64) -> bool {
        match self {
            // On a busy interface a block is always there to be read.
            Self::Ring(ring) => {
                ring.heard_until_ns() >= look.wall_ns + RING_SETTLES_US * 1000
                    || age_us >= self.settles_after_us() && !ring.waits()
            }
            Self::Counted(counted) => age_us >= self.settles_after_us() && !counted.waits(),
        }
    }

    /// Whether nothing more is heard from now on.
    pub(super) fn stop(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.stop().is_ok(),
            Self::Counted(counted) => {
                counted.stop();
                true
            }
        }
    }

    /// When frames must be looked for again at the latest, whether anything is
    /// heard of them or not.
    pub(super) fn look_again(&self) -> Option<Duration> {
        match self {
            Self::Ring(_) => None,
            Self::Counted(counted) => counted.look_again(),
        }
    }

    /// What is readable when there are frames, unless somebody else reads them, and what
    /// is in error when the interface went down.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (frames, alarm) = match self {
            Self::Ring(ring) => (Some(ring.as_fd()), None),
            Self::Counted(counted) => (counted.reader().map(AsFd::as_fd), counted.alarm()),
        };
        frames.into_iter().chain(alarm)
    }

    /// Forgets the error that a descriptor is in, so that it is no longer.
    pub(super) fn forget_error(&self) {
        // What the error was does not matter: an interface that is only down
        // carries no frames, and one that is gone shows by its name.
        let _down = match self {
            Self::Ring(ring) => ring.take_error(),
            Self::Counted(counted) => counted.take_error(),
        };
    }
}

fn counted(target: &NetworkTarget) -> Result<Source, BpfFramesError> {
    let netns = target.netns.as_deref();
    if let Some(hub) = &target.hub {
        let tap = hub.frames().attach(&target.interface, netns)?;
        let room = hub.flow_share();
        let counted = Counted::among_many(tap, Arc::clone(hub.frames()), room);
        return Ok(Source::Counted(Box::new(counted)));
    }
    let config = frames_config(target);
    let (frames, reader) = BpfFrames::load(config)?;
    let tap = frames.attach(&target.interface, netns)?;
    let counted = Counted::alone(tap, reader, config.flows);
    Ok(Source::Counted(Box::new(counted)))
}

/// Evidence is of whole frames: of 64 KiB, headers and tags. A block holds
/// them, and there are as many as in the same memory, but some at least.
fn ring_config(target: &NetworkTarget) -> RingConfig {
    const WHOLE: u32 = 66_000;
    const LEAST_BLOCKS: u32 = 8;
    let ring = target.ring;
    if target.evidence.is_none() {
        return ring;
    }
    let block_size = ring.block_size.max(2 * WHOLE.next_power_of_two());
    let blocks = ring.block_size.saturating_mul(ring.blocks) / block_size;
    RingConfig {
        block_size,
        blocks: blocks.max(LEAST_BLOCKS),
        snap_length: WHOLE,
        ..ring
    }
}

fn frames_config(target: &NetworkTarget) -> BpfFramesConfig {
    let RingConfig {
        block_size, blocks, ..
    } = target.ring;
    let ring = block_size.saturating_mul(blocks) / 4;
    let ring = ring.max(LEAST_FRAMES_RING).next_power_of_two();
    let flows = u32::try_from(target.flows.max_flows).unwrap_or(u32::MAX);
    BpfFramesConfig {
        interfaces: 1,
        flows,
        flow_share: flows,
        flow_common: flows,
        ring,
        ring_share: ring,
        ring_common: ring,
        snap_length: target.ring.snap_length,
        pause_ns: pause_ns(&target.flows),
    }
}

/// The silence that ends a call, as the programs take it.
pub(super) fn pause_ns(flows: &FlowConfig) -> Option<u64> {
    flows.call_pause_us.map(|pause| pause.saturating_mul(1000))
}

fn read_ring(
    ring: &mut PacketRing,
    flows: &mut FlowTable,
    mut evidence: Option<&mut Evidence>,
    sink: &mut dyn FlowSink,
) -> usize {
    let mut frames = 0;
    for _ in 0..BLOCKS_AT_ONCE {
        // Frames bear wall time; the offset between the clocks turns it
        // into boot time once a block, not once a frame.
        let clocks = Clocks::read();
        let Some(block) = ring.next_block() else {
            break;
        };
        for raw in block.packets() {
            if let Some(evidence) = &mut evidence {
                evidence.keep(&evidence_frame(&raw));
            }
            flows.packet(&packet(&raw, clocks), sink);
            frames += 1;
        }
    }
    frames
}

fn evidence_frame<'a>(raw: &RawPacket<'a>) -> EvidenceFrame<'a> {
    EvidenceFrame {
        wall_ns: raw.wall_ns,
        direction: Some(direction(raw)),
        bytes: raw.bytes,
        wire_len: wire_len(raw),
        vlan: raw.vlan_tci.map(|tci| (raw.vlan_tpid, tci)),
    }
}

fn direction(raw: &RawPacket<'_>) -> Direction {
    if raw.outgoing {
        Direction::ToSandbox
    } else {
        Direction::FromSandbox
    }
}

/// The kernel took the tag out of the frame, but the interface counted it.
fn wire_len(raw: &RawPacket<'_>) -> u32 {
    let tag = if raw.vlan_tci.is_some() {
        VLAN_TAG_BYTES
    } else {
        0
    };
    raw.wire_len.saturating_add(tag)
}

fn packet<'a>(raw: &RawPacket<'a>, clocks: Clocks) -> Packet<'a> {
    Packet {
        at: clocks.at_wall(raw.wall_ns),
        direction: direction(raw),
        bytes: raw.bytes,
        wire_len: wire_len(raw),
        // The low 12 bits are the identifier, the rest priority (IEEE 802.1Q).
        vlan: raw.vlan_tci.map(|tci| tci & 0x0fff),
    }
}
