//! One sandbox's interface: ring, flow table, counters.

use super::before;
use super::clocks::now;
use super::convert::{Reporter, timestamp};
use super::counted::Counted;
use super::evidence::{Evidence, EvidenceConfig};
use super::hosts::{Hosts, Nearby};
use super::hub::NetworkHub;
use super::reconcile::{Around, reconcile};
use super::source::{Backend, BackendChosen, Source};
use super::standing::{Look, Missing, Standing};
use crate::Observer;
use sandtrace_event::{
    CaptureGap, Count, EvidenceTier, GapCause, GapUnit, Layer, Observation, Passed, Reconciliation,
    Timestamp,
};
use sandtrace_sys::bpf::BpfFramesError;
use sandtrace_sys::netdev::{self, Counters, NetDev};
use sandtrace_sys::netns::{self, NetnsError};
use sandtrace_sys::ring::{RingConfig, RingError};
use sandtrace_sys::{clock, links};
use sandtrace_wire::{FlowConfig, FlowSink, FlowTable, Totals};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

/// How often sums, drops and the interface's existence are looked at.
const CHECK_INTERVAL_US: u64 = 1_000_000;

/// The same where nothing was counted for some seconds, by the flows or by the
/// interface: of a thousand sandboxes most are idle, and each look costs some
/// microseconds.
const IDLE_CHECK_INTERVAL_US: u64 = 5_000_000;

/// Counters that cannot be compared for so long, because the reader is far behind,
/// are not.
const PUT_OFF_US: u64 = 5_000_000;

/// Reports made between two looks at the frames. A thousand take milliseconds;
/// a ring that fits a sandbox among many is full in that time.
const REPORTS_AT_ONCE: usize = 256;

/// Between two looks whether an observer that had no room has some: its thread
/// makes room faster where nobody takes the processor from it to ask.
const ROOM_INTERVAL_US: u64 = 1_000;

/// Which interface to watch, and how.
#[derive(Clone)]
pub struct NetworkTarget {
    /// Interface on the host.
    pub interface: String,
    /// Its network namespace; `None` for the caller's.
    pub netns: Option<PathBuf>,
    /// `Hypervisor` for a VM's tap, `Kernel` where the sandbox shares the host's kernel.
    pub tier: EvidenceTier,
    /// What captures it.
    pub backend: Backend,
    /// The programs of many interfaces, where eBPF is to be one of those.
    pub hub: Option<NetworkHub>,
    /// Flow table settings.
    pub flows: FlowConfig,
    /// Packet ring settings; the ring of the eBPF programs goes by them too.
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
    /// The eBPF programs could not be attached.
    #[error(transparent)]
    Ebpf(#[from] BpfFramesError),
    /// Evidence files hold every frame, which eBPF programs do not hand over.
    #[error("evidence files need every frame: use --capture af-packet")]
    EvidenceNeedsRing,
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
    /// Its name, where records must say which interface they are of.
    interface: Option<String>,
    source: Source,
    chosen: BackendChosen,
    flows: FlowTable,
    hosts: Hosts,
    evidence: Option<Evidence>,
    netdev: NetDev,
    /// Of the interface; another one may get its name.
    index: Option<u32>,
    /// It is gone, whoever has its name now.
    gone: bool,
    at_attach: Around,
    /// What had crossed it by then.
    pub(super) passed: Option<Passed>,
    pub(super) began: Timestamp,
    /// Of the moment when it was stopped.
    at_stop: Option<Around>,
    drops: u64,
    /// What was compared so far.
    standing: Standing,
    next_check_us: u64,
    /// Until when reports that are due wait for the observer.
    full_until_us: u64,
    last_check: Timestamp,
    /// What had been counted by then.
    counted: Totals,
}

impl NetworkCollector {
    /// Begins the capture; frames are kept from here on, read or not.
    ///
    /// # Errors
    /// When the interface or its namespace does not exist or a capability is missing.
    pub fn attach(target: NetworkTarget) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Counters {
            interface: target.interface.clone(),
            source,
        };
        let netns = target.netns.as_deref();
        let look = || {
            let index = netdev::index(&target.interface).ok().flatten();
            // Taps are used again, by one sandbox after the other: who held it last
            // counts alone where there was nobody else. What cannot be told is not.
            let own = index.is_some_and(|index| links::is_held_first(index).unwrap_or(false));
            (NetDev::open(), index, own, Nearby::here())
        };
        // All at one go: each change of namespaces takes a thread.
        let (netdev, index, own, near) = netns::within(netns, look)?;
        let mut netdev = netdev.map_err(failed)?;
        let mut count = || netdev.read(&target.interface).map_err(failed);
        let before = count()?;
        let (source, chosen) = Source::open(&target)?;
        let after = count()?;
        let (Some(before), Some(after)) = (before, after) else {
            return Err(NetworkError::Vanished(target.interface));
        };
        let passed = before::passed(&target, own, before);
        let evidence = match target.evidence.clone() {
            Some(config) => {
                let directory = config.directory.clone();
                let begun = Evidence::begin(config, &target.interface, target.tier);
                Some(begun.map_err(|source| NetworkError::Evidence { directory, source })?)
            }
            None => None,
        };
        let now = now();
        let hosts = Hosts::near(near);
        let shared = target.flows.numbering.shares_trail();
        let mut collector = Self {
            evidence,
            interface: shared.then(|| target.interface.clone()),
            flows: FlowTable::new(target.flows.clone()),
            hosts,
            target,
            source,
            chosen,
            netdev,
            index,
            gone: false,
            at_attach: Around { before, after },
            passed,
            began: timestamp(now),
            at_stop: None,
            drops: 0,
            standing: Standing::default(),
            next_check_us: now.mono_us,
            full_until_us: 0,
            last_check: timestamp(now),
            counted: Totals::default(),
        };
        collector.look_at_hosts(now.mono_us);
        Ok(collector)
    }

    /// Before frames are taken in: a finding goes by what was the host's then.
    pub(super) fn look_at_hosts(&mut self, now_us: u64) {
        if let Some(mut addresses) = self.hosts.changed(now_us) {
            addresses.extend(&self.target.flows.host_addresses);
            self.flows.set_host_addresses(addresses);
        }
    }

    /// What captures it, and why that.
    #[must_use]
    pub fn backend(&self) -> &BackendChosen {
        &self.chosen
    }

    /// Reads what the kernel has handed over. Answers how many frames.
    pub fn read(&mut self, observer: &mut dyn Observer) -> usize {
        self.look_at_hosts(clock::boot_us());
        let tier = self.target.tier;
        let mut reporter = Reporter::patient(observer, tier, self.interface.as_deref());
        let evidence = self.evidence.as_mut();
        let frames = self.source.read(&mut self.flows, evidence, &mut reporter);
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
        self.look_at_hosts(now.mono_us);
        if now.mono_us >= self.next_check_us {
            self.take_sums(observer);
        }
        let mut reporter = Reporter {
            observer,
            tier,
            interface: self.interface.as_deref(),
            left: Some(REPORTS_AT_ONCE),
        };
        let next = self.flows.tick(now, &mut reporter);
        let is_full = reporter.left.is_some() && reporter.observer.room() == 0;
        self.full_until_us = if is_full {
            now.mono_us.saturating_add(ROOM_INTERVAL_US)
        } else {
            0
        };
        let next = next.map(|next_us| next_us.max(self.full_until_us));
        let mut attached = Attached::Yes;
        if now.mono_us >= self.next_check_us {
            self.report_drops(timestamp(now), observer);
            if let Some(evidence) = &mut self.evidence {
                evidence.tick(timestamp(now), observer);
            }
            attached = self.look_at_counters(timestamp(now), observer);
            self.next_check_us = now.mono_us + self.check_interval_us();
        }
        let again = self.source.look_again().map(|again| {
            let micros = u64::try_from(again.as_micros()).unwrap_or(u64::MAX);
            now.mono_us.saturating_add(micros)
        });
        let next = next.into_iter().chain(again).chain([self.next_check_us]);
        (next.min().unwrap_or(self.next_check_us), attached)
    }

    /// When [`tick`](Self::tick) is due, in microseconds of `CLOCK_BOOTTIME`,
    /// once frames were taken in.
    pub fn due_us(&mut self, now_us: u64) -> u64 {
        let soon = now_us.saturating_add(CHECK_INTERVAL_US);
        self.next_check_us = self.next_check_us.min(soon);
        let due = self.flows.due_us().into_iter();
        let due = due.map(|due_us| due_us.max(self.full_until_us));
        due.chain([self.next_check_us]).min().unwrap_or(soon)
    }

    /// Sums that nobody else reads may have grown without any frame.
    fn check_interval_us(&mut self) -> u64 {
        if self.standing.to_compare().is_some() {
            return self.source.settles_after_us();
        }
        let totals = self.flows.totals();
        let before = std::mem::replace(&mut self.counted, totals);
        let is_still = before == totals && self.standing.is_still();
        if is_still && !self.source.reads_sums() {
            IDLE_CHECK_INTERVAL_US
        } else {
            CHECK_INTERVAL_US
        }
    }

    /// One is readable when there is something to [`read`](Self::read), unless a hub's
    /// reader tells it that; one is in error when the interface went down.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.source.descriptors()
    }

    pub(super) fn shared(&self) -> Option<&Counted> {
        match &self.source {
            Source::Counted(counted) if counted.reader().is_none() => Some(counted),
            _ => None,
        }
    }

    pub(super) fn with_shared(
        &mut self,
        observer: &mut dyn Observer,
        act: impl FnOnce(&mut Counted, &mut FlowTable, &mut dyn FlowSink) -> io::Result<()>,
    ) {
        let tier = self.target.tier;
        if let Source::Counted(counted) = &mut self.source {
            let mut reporter = Reporter::patient(observer, tier, self.interface.as_deref());
            // A failure shows in the reconciliation.
            let _shows_at_the_end = act(counted, &mut self.flows, &mut reporter);
        }
    }

    /// Whether the interface still exists, to be asked when a descriptor is in
    /// error, which it no longer is afterwards.
    pub fn look_at_interface(&mut self) -> Attached {
        self.source.forget_error();
        // Under its name there may be another by now, which this one never hears.
        self.gone |= self.has_successor();
        self.look_at_name()
    }

    fn has_successor(&self) -> bool {
        let name = &self.target.interface;
        let index = || netdev::index(name);
        match netns::within(self.target.netns.as_deref(), index) {
            Ok(Ok(now)) => self.index.is_some() && now != self.index,
            // What cannot be told now is told by its name.
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Whether the interface still exists, and whether what it counted is in the flows.
    fn look_at_counters(&mut self, at: Timestamp, observer: &mut dyn Observer) -> Attached {
        if self.standing.to_compare().is_none() {
            match self.netdev.read(&self.target.interface) {
                Ok(Some(counters)) if !self.gone => self.standing.open(Look {
                    at_us: at.mono_us,
                    wall_ns: at.wall.0,
                    counters,
                }),
                Ok(None) => self.gone = true,
                // A counter that cannot be read now shows at the end, when it must be.
                Ok(Some(_)) | Err(_) => {}
            }
        }
        let Some(look) = self.standing.to_compare() else {
            return self.attached();
        };
        let age_us = at.mono_us.saturating_sub(look.at_us);
        let is_still = self.standing.is_still() && !self.source.waits();
        if is_still || self.source.has_settled(&look, age_us) {
            // What waits in the table for the observer is in its totals all the same.
            let (attach, totals) = (self.at_attach, self.flows.totals());
            let missing = self.standing.compare(attach, totals, self.drops);
            if let Some(missing) = missing {
                self.report_missing(at, missing, observer);
            }
        } else if age_us > PUT_OFF_US {
            self.standing.put_off();
        }
        self.attached()
    }

    fn attached(&self) -> Attached {
        if self.gone {
            Attached::Gone
        } else {
            Attached::Yes
        }
    }

    fn look_at_name(&mut self) -> Attached {
        // A counter that cannot be read now shows at the end, when it must be.
        self.gone |= matches!(self.netdev.read(&self.target.interface), Ok(None));
        self.attached()
    }

    /// Takes the interface for gone: nobody listens to it any more.
    pub fn forsake(&mut self) {
        self.gone = true;
    }

    /// The interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.target.interface
    }

    pub(super) fn tier(&self) -> EvidenceTier {
        self.target.tier
    }

    /// Hears nothing any more, and reads the counters of this moment: the
    /// interface is about to be another sandbox's. [`Self::finish`] then has
    /// time.
    pub fn stop(&mut self) {
        let before = self.counters();
        // Where it cannot be the end is told as for one that was not stopped.
        if self.source.stop()
            && let (Some(before), Some(after)) = (before, self.counters())
        {
            self.at_stop = Some(Around { before, after });
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
        self.flows.finish(
            now,
            &mut Reporter::unbounded(observer, tier, self.interface.as_deref()),
        );
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
    /// or the interface proves to be too busy for that. An interface that is
    /// gone has no counters, but what was heard of it until then is read.
    fn settle(&mut self, observer: &mut dyn Observer) -> Option<Around> {
        const TRIES: usize = 8;
        let retire = Duration::from_millis(u64::from(self.target.ring.retire_ms) * 2 + 1);
        if let Some(around) = self.at_stop {
            std::thread::sleep(retire);
            while self.read(observer) > 0 {}
            self.take_sums(observer);
            return Some(around);
        }
        let mut around = None;
        for _ in 0..TRIES {
            let before = self.counters();
            std::thread::sleep(retire);
            while self.read(observer) > 0 {}
            self.take_sums(observer);
            let (before, after) = (before?, self.counters()?);
            around = Some(Around { before, after });
            if before == after {
                break;
            }
        }
        around
    }

    fn counters(&mut self) -> Option<Counters> {
        if self.gone {
            return None;
        }
        self.netdev.read(&self.target.interface).ok().flatten()
    }

    fn report_drops(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        let lost = self.source.lost();
        let uncounted = lost.frames.saturating_add(lost.left_out);
        self.drops = self.drops.saturating_add(uncounted);
        let gaps = [
            (lost.frames, "the kernel's packet ring was full"),
            (
                lost.left_out,
                "the trail could take no more: these frames were left out",
            ),
            (
                lost.unread,
                "the ring was full: these frames were counted in their flows, but what they said \
                 was not read",
            ),
        ];
        for (frames, detail) in gaps.into_iter().filter(|(frames, _)| *frames > 0) {
            let (cause, unit) = (GapCause::RingDrop, GapUnit::Packets);
            self.report_gap(at, cause, frames, unit, detail, observer);
        }
        self.last_check = at;
    }

    /// Takes in what the kernel only counted.
    fn take_sums(&mut self, observer: &mut dyn Observer) {
        let tier = self.target.tier;
        let mut reporter = Reporter::patient(observer, tier, self.interface.as_deref());
        self.source.take_sums(&mut self.flows, &mut reporter);
    }

    fn report_gone(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        let detail = "the interface was removed while it was watched, or could not be watched \
                      further; its counters could not be read a last time, so the flows are not \
                      reconciled with them";
        let unit = GapUnit::Interfaces;
        self.report_gap(at, GapCause::InterfaceGone, 1, unit, detail, observer);
    }

    fn report_missing(&mut self, at: Timestamp, missing: Missing, observer: &mut dyn Observer) {
        let detail = format!(
            "the interface counted {} frames sent and {} received by some seconds ago that are in \
             no flow; {} were dropped by the ring, and others told before",
            missing.sent, missing.received, self.drops
        );
        let (cause, unit) = (GapCause::CounterMismatch, GapUnit::Packets);
        self.report_gap(at, cause, missing.frames, unit, &detail, observer);
    }

    /// What is missing beyond what was told while the watch went on.
    fn report_mismatch(&mut self, at: Timestamp, r: &Reconciliation, observer: &mut dyn Observer) {
        let told = self.standing.told();
        let missing = r.interface_packets_sent.0.abs_diff(r.flow_packets_sent.0)
            + r.interface_packets_received
                .0
                .saturating_sub(r.flow_packets_received.0);
        if told > 0 && missing <= told {
            return;
        }
        let detail = format!(
            "the interface counts {} frames sent and {} received, the flows {} and {}; {} were \
             dropped by the ring, and {told} told before",
            r.interface_packets_sent,
            r.interface_packets_received,
            r.flow_packets_sent,
            r.flow_packets_received,
            r.ring_drops
        );
        let cause = GapCause::CounterMismatch;
        let untold = missing.saturating_sub(told);
        self.report_gap(at, cause, untold, GapUnit::Packets, &detail, observer);
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
