//! One sandbox's interface: ring, flow table, counters.

use super::convert::{Reporter, timestamp};
use super::evidence::{Evidence, EvidenceConfig};
use super::pcapng::EvidenceFrame;
use super::reconcile::{Around, reconcile};
use crate::Observer;
use sandtrace_event::{
    CaptureGap, Count, EvidenceTier, GapCause, GapUnit, Layer, Observation, Reconciliation,
    Timestamp,
};
use sandtrace_sys::clock;
use sandtrace_sys::netdev::{Counters, NetDev};
use sandtrace_sys::netns::{self, NetnsError};
use sandtrace_sys::ring::{PacketRing, RawPacket, RingConfig, RingError};
use sandtrace_wire::{Direction, FlowConfig, FlowTable, Moment, Packet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Blocks read in one go, so that timers are not starved by a flood.
const BLOCKS_AT_ONCE: usize = 32;
/// How often drops and the interface's existence are looked at.
const CHECK_INTERVAL_US: u64 = 1_000_000;
/// Length of an 802.1Q tag: the kernel strips it from the frame, the interface counted it.
const VLAN_TAG_BYTES: u32 = 4;

/// Which interface to watch, and how.
#[derive(Clone, Debug)]
pub struct NetworkTarget {
    /// Interface on the host.
    pub interface: String,
    /// Its network namespace; `None` for the caller's.
    pub netns: Option<PathBuf>,
    /// `Hypervisor` for a VM's tap, `Kernel` where the sandbox shares the host's kernel.
    pub tier: EvidenceTier,
    /// Flow table settings.
    pub flows: FlowConfig,
    /// Packet ring settings.
    pub ring: RingConfig,
    /// Where frames are kept as they were, if they are.
    pub evidence: Option<EvidenceConfig>,
}

/// Why an interface cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The packet ring could not be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The interface's counters could not be read.
    #[error("read the counters of {interface}: {source}")]
    Counters {
        /// The interface.
        interface: String,
        /// The cause.
        source: io::Error,
    },
    /// The first evidence file could not be created.
    #[error("create an evidence file in {directory}: {source}")]
    Evidence {
        /// Where.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It vanished between two steps.
    #[error("interface {0} vanished while it was being attached")]
    Vanished(String),
}

/// Whether the interface is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// It is.
    Yes,
    /// It was removed; nothing more will come.
    Gone,
}

/// Captures one interface.
pub struct NetworkCollector {
    target: NetworkTarget,
    ring: PacketRing,
    flows: FlowTable,
    evidence: Option<Evidence>,
    netdev: NetDev,
    at_attach: Around,
    drops: u64,
    next_check_us: u64,
    last_check: Timestamp,
}

impl NetworkCollector {
    /// Opens the ring; frames are kept from here on, read or not.
    ///
    /// # Errors
    /// When the interface or its namespace does not exist or a capability is missing.
    pub fn attach(target: NetworkTarget) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Counters {
            interface: target.interface.clone(),
            source,
        };
        let netns = target.netns.as_deref();
        let mut netdev = netns::within(netns, NetDev::open)?.map_err(failed)?;
        let mut count = || netdev.read(&target.interface).map_err(failed);
        let before = count()?;
        let ring = PacketRing::open(&target.interface, netns, target.ring)?;
        let after = count()?;
        let (Some(before), Some(after)) = (before, after) else {
            return Err(NetworkError::Vanished(target.interface));
        };
        let evidence = match target.evidence.clone() {
            Some(config) => {
                let directory = config.directory.clone();
                let begun = Evidence::begin(config, &target.interface, target.tier);
                Some(begun.map_err(|source| NetworkError::Evidence { directory, source })?)
            }
            None => None,
        };
        let now = now();
        Ok(Self {
            evidence,
            flows: FlowTable::new(target.flows.clone()),
            target,
            ring,
            netdev,
            at_attach: Around { before, after },
            drops: 0,
            next_check_us: now.mono_us,
            last_check: timestamp(now),
        })
    }

    /// Reads what the kernel has handed over. Answers how many frames.
    pub fn read(&mut self, observer: &mut dyn Observer) -> usize {
        let tier = self.target.tier;
        let mut reporter = Reporter { observer, tier };
        let mut frames = 0;
        for _ in 0..BLOCKS_AT_ONCE {
            // Frames bear wall time; the offset between the clocks turns it
            // into boot time once a block, not once a frame.
            let clocks = Clocks::read();
            let Some(block) = self.ring.next_block() else {
                break;
            };
            for raw in block.packets() {
                if let Some(evidence) = &mut self.evidence {
                    evidence.keep(&evidence_frame(&raw));
                }
                self.flows.packet(&packet(&raw, clocks), &mut reporter);
                frames += 1;
            }
        }
        if let Some(evidence) = &mut self.evidence {
            evidence.rotate(timestamp(now()), self.drops, observer);
        }
        frames
    }

    /// Reports what is due by now. Answers when the next thing will be, in
    /// microseconds of `CLOCK_BOOTTIME`, and whether the interface is still there.
    pub fn tick(&mut self, observer: &mut dyn Observer) -> (u64, Attached) {
        let now = now();
        let tier = self.target.tier;
        let next = self.flows.tick(now, &mut Reporter { observer, tier });
        let mut attached = Attached::Yes;
        if now.mono_us >= self.next_check_us {
            self.report_drops(timestamp(now), observer);
            attached = self.look_at_interface();
            self.next_check_us = now.mono_us + CHECK_INTERVAL_US;
        }
        (
            next.map_or(self.next_check_us, |next| next.min(self.next_check_us)),
            attached,
        )
    }

    /// Whether the interface still exists, to be asked when the ring's
    /// descriptor is in error, which it no longer is afterwards.
    pub fn look_at_interface(&mut self) -> Attached {
        // What the error was does not matter: an interface that is only down
        // carries no frames, and one that is gone shows by its name.
        let _down = self.ring.take_error();
        match self.netdev.read(&self.target.interface) {
            Ok(None) => Attached::Gone,
            // A counter that cannot be read now shows at the end, when it must be.
            Ok(Some(_)) | Err(_) => Attached::Yes,
        }
    }

    /// Reads what is left, closes every flow and compares sums with the
    /// interface's counters. `None`: the interface is gone and its counters
    /// with it, which is reported as a gap.
    pub fn finish(mut self, observer: &mut dyn Observer) -> Option<Reconciliation> {
        let around = self.settle(observer);
        let now = now();
        let at = timestamp(now);
        self.report_drops(at, observer);
        let tier = self.target.tier;
        self.flows.finish(now, &mut Reporter { observer, tier });
        if let Some(evidence) = self.evidence.take() {
            evidence.finish(at, self.drops, observer);
        }
        let Some(at_detach) = around else {
            self.report_gone(at, observer);
            return None;
        };
        let result = reconcile(
            &self.target.interface,
            self.at_attach,
            at_detach,
            self.flows.totals(),
            self.drops,
        );
        if !result.matches {
            self.report_mismatch(at, &result, observer);
        }
        Some(result)
    }

    /// Drains the ring between two readings of the counters, until they agree
    /// or the interface proves to be too busy for that.
    fn settle(&mut self, observer: &mut dyn Observer) -> Option<Around> {
        const TRIES: usize = 8;
        let retire = Duration::from_millis(u64::from(self.target.ring.retire_ms) * 2 + 1);
        let mut around = None;
        for _ in 0..TRIES {
            let before = self.counters()?;
            std::thread::sleep(retire);
            while self.read(observer) > 0 {}
            let after = self.counters()?;
            around = Some(Around { before, after });
            if before == after {
                break;
            }
        }
        around
    }

    fn counters(&mut self) -> Option<Counters> {
        self.netdev.read(&self.target.interface).ok().flatten()
    }

    fn report_drops(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        let drops = self
            .ring
            .statistics()
            .map_or(0, |statistics| statistics.drops);
        if drops > 0 {
            self.drops = self.drops.saturating_add(drops);
            let detail = "the kernel's packet ring was full";
            self.report_gap(
                at,
                GapCause::RingDrop,
                drops,
                GapUnit::Packets,
                detail,
                observer,
            );
        }
        self.last_check = at;
    }

    fn report_gone(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        let detail = "the interface was removed while it was watched; its counters could not be \
                      read a last time, so the flows are not reconciled with them";
        let unit = GapUnit::Interfaces;
        self.report_gap(at, GapCause::InterfaceGone, 1, unit, detail, observer);
    }

    fn report_mismatch(&mut self, at: Timestamp, r: &Reconciliation, observer: &mut dyn Observer) {
        let missing = r.interface_packets_sent.0.abs_diff(r.flow_packets_sent.0)
            + r.interface_packets_received
                .0
                .saturating_sub(r.flow_packets_received.0);
        let detail = format!(
            "the interface counts {} frames sent and {} received, the flows {} and {}; {} were \
             dropped by the ring",
            r.interface_packets_sent,
            r.interface_packets_received,
            r.flow_packets_sent,
            r.flow_packets_received,
            r.ring_drops
        );
        let cause = GapCause::CounterMismatch;
        self.report_gap(at, cause, missing, GapUnit::Packets, &detail, observer);
    }

    fn report_gap(
        &self,
        at: Timestamp,
        cause: GapCause,
        count: u64,
        unit: GapUnit,
        detail: &str,
        observer: &mut dyn Observer,
    ) {
        let gap = CaptureGap {
            cause,
            count: Count(count),
            detail: detail.to_owned(),
            first_at: self.last_check.wall,
            last_at: at.wall,
            layer: Layer::Network,
            source: self.target.interface.clone(),
            unit,
        };
        observer.observe(Observation {
            at,
            payload: gap.into(),
            tier: self.target.tier,
        });
    }
}

impl AsFd for NetworkCollector {
    /// Readable when there is something to [`read`](Self::read); in error
    /// when the interface went down.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Clocks {
    boot_us: u64,
    wall_ns: u64,
}

impl Clocks {
    fn read() -> Self {
        Self {
            boot_us: clock::boot_us(),
            wall_ns: clock::wall_ns(),
        }
    }

    /// Boot time of something that happened at `wall_ns`, a moment ago.
    fn boot_us_at(self, wall_ns: u64) -> u64 {
        let ago_us = self.wall_ns.saturating_sub(wall_ns) / 1000;
        self.boot_us.saturating_sub(ago_us)
    }
}

fn now() -> Moment {
    Moment {
        mono_us: clock::boot_us(),
        wall_ns: clock::wall_ns(),
    }
}

fn evidence_frame<'a>(raw: &RawPacket<'a>) -> EvidenceFrame<'a> {
    EvidenceFrame {
        wall_ns: raw.wall_ns,
        direction: Some(direction(raw)),
        bytes: raw.bytes,
        wire_len: wire_len(raw),
        vlan_tci: raw.vlan_tci,
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
    let mono_us = clocks.boot_us_at(raw.wall_ns);
    Packet {
        at: Moment {
            mono_us,
            wall_ns: raw.wall_ns,
        },
        direction: direction(raw),
        bytes: raw.bytes,
        wire_len: wire_len(raw),
        // The low 12 bits are the identifier, the rest priority (IEEE 802.1Q).
        vlan: raw.vlan_tci.map(|tci| tci & 0x0fff),
    }
}
