//! The table itself.

use crate::config::FlowConfig;
use crate::dns::{DnsTransaction, PendingQuestions, Tunnelling};
use crate::findings::Finding;
use crate::flow::Totals;
use crate::flow::aggregate::{Aggregates, Openings};
use crate::flow::carried::{Carried, Segments};
use crate::flow::deadlines::Deadlines;
use crate::flow::folded::Folded;
use crate::flow::index::Index;
use crate::flow::macs::Macs;
use crate::flow::one::Flow;
use crate::flow::recency::Recency;
use crate::flow::search::{Found, Search, Wanted};
use crate::fragments::Fragments;
use crate::frame::Frame;
use crate::key::FlowKey;
use crate::names::NameBook;
use crate::orientation::Orientation;
use crate::packet::{Moment, Packet};
use crate::tunnel::{Inner, MAX_DEPTH, Tunnels};
use crate::view::{Bounds, End, FlowView, Phase, Protocol};
use std::net::IpAddr;

/// Where a table reports to.
pub trait FlowSink {
    /// Called at the open, at updates and at the close of a flow. What it
    /// answers bounds the flow from now on, in place of the former bounds: an
    /// update is reported at once when a bound is crossed.
    fn flow(&mut self, phase: Phase, at: Moment, flow: &FlowView<'_>) -> Bounds;

    /// Called once for a question: at its matched answer, or when none came in
    /// time. An answer that matches no question is reported too. An answer with
    /// too much text for one record is reported in parts, each with further answers.
    /// Of too many questions those that are alike are reported as one.
    fn dns(&mut self, at: Moment, query: &DnsTransaction);

    /// How many reports it can take now without making the table wait. Opens,
    /// updates and closes that are due then wait in the table instead, where
    /// their flows are anyway, so that packets go on being counted.
    fn room(&self) -> usize {
        usize::MAX
    }
}

/// All flows of one sandbox.
#[derive(Debug)]
pub struct FlowTable {
    pub(super) config: FlowConfig,
    pub(super) totals: Totals,
    slots: Index,
    /// The flow of the latest packet, which most often has the next one too.
    latest: Option<(FlowKey, u32)>,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    recency: Recency,
    deadlines: Deadlines,
    /// Bytes in use for reading the starts of connections.
    reading_bytes: usize,
    pub(super) names: NameBook,
    pub(super) questions: PendingQuestions,
    pub(super) folded: Folded,
    pub(super) fragments: Fragments,
    pub(super) tunnelling: Tunnelling,
    tunnels: Tunnels,
    pub(super) aggregates: Aggregates,
    openings: Openings,
    /// Who asks which frames are of one conversation.
    pub(super) search: Option<Box<Search>>,
    macs: Macs,
}

impl FlowTable {
    /// An empty table.
    #[must_use]
    pub fn new(config: FlowConfig) -> Self {
        Self {
            totals: Totals::default(),
            slots: Index::default(),
            latest: None,
            flows: Vec::new(),
            free: Vec::new(),
            recency: Recency::default(),
            deadlines: Deadlines::default(),
            reading_bytes: 0,
            names: NameBook::new(config.max_named_addresses),
            questions: PendingQuestions::default(),
            folded: Folded::new(config.dns_burst),
            fragments: Fragments::default(),
            tunnelling: Tunnelling::default(),
            tunnels: Tunnels::default(),
            aggregates: Aggregates::default(),
            openings: Openings::new(config.open_burst),
            search: None,
            macs: Macs::default(),
            config,
        }
    }

    /// An empty table that keeps account of which frames one conversation has.
    #[must_use]
    pub fn searching(config: FlowConfig, wanted: Wanted) -> Self {
        Self {
            search: Some(Box::new(Search::new(wanted))),
            ..Self::new(config)
        }
    }

    /// The frames of the conversation that was searched for, if there are any.
    /// Fragments that still wait are among them after [`finish`](Self::finish).
    #[must_use]
    pub fn found(self) -> Option<Found> {
        self.search.and_then(|search| search.found())
    }

    /// The host's addresses from now on, for conversations that begin.
    pub fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.config.host_addresses = addresses;
    }

    /// Counts one packet, and reports what it makes due.
    pub fn packet(&mut self, packet: &Packet<'_>, sink: &mut dyn FlowSink) {
        self.packet_to_cut(packet, 0, sink);
    }

    /// Counts one packet that an offload is to cut into segments with so many bytes of
    /// payload; 0 where it is not known to be cut.
    pub fn packet_to_cut(&mut self, packet: &Packet<'_>, segment: u32, sink: &mut dyn FlowSink) {
        let packet = packet.at_least_captured();
        self.parsed(&packet, Frame::parse(&packet), segment, sink);
    }

    /// Counts one packet of a capture that does not say which way it went, which
    /// `orientation` tells in place of the packet.
    pub fn oriented(
        &mut self,
        packet: &Packet<'_>,
        orientation: &mut Orientation,
        sink: &mut dyn FlowSink,
    ) {
        let mut packet = packet.at_least_captured();
        let frame = Frame::parse(&packet);
        packet.direction = orientation.of(&frame, packet.bytes);
        self.parsed(&packet, frame, 0, sink);
    }

    fn parsed(
        &mut self,
        packet: &Packet<'_>,
        mut frame: Frame<'_>,
        segment: u32,
        sink: &mut dyn FlowSink,
    ) {
        let Packet { at, direction, .. } = *packet;
        let (frames, wire_bytes) = (1, u64::from(packet.wire_len));
        self.totals.count(direction, frames, wire_bytes);
        if let Some(search) = &mut self.search {
            search.frame();
        }
        if self.config.check_macs {
            frame.findings = frame.findings.union(self.macs.findings(packet, &frame));
        }
        let carried = Carried {
            at,
            since: at,
            direction,
            frames,
            wire_bytes,
            segments: Segments::Of(segment),
            within: 0,
            tunnel: None,
            depth: 0,
            bulk: None,
        };
        self.frame(&frame, carried, sink);
    }

    fn frame(&mut self, frame: &Frame<'_>, carried: Carried, sink: &mut dyn FlowSink) {
        match frame.fragment {
            Some(fragment) => self.fragment(frame, fragment, carried, sink),
            None => self.datagram(frame, carried, sink),
        }
    }

    /// Counts a whole datagram or a frame that is none, and what is inside.
    pub(super) fn datagram(
        &mut self,
        frame: &Frame<'_>,
        carried: Carried,
        sink: &mut dyn FlowSink,
    ) {
        let (key, carried) = self.key(frame, carried);
        let Carried { at, direction, .. } = carried;
        let slot = self.slot(key, frame, &carried, sink);
        let Some(flow) = slot_mut(&mut self.flows, slot) else {
            return;
        };
        let flow_id = flow.id();
        if let Some(search) = &mut self.search {
            search.counted(flow, carried.since);
        }
        let reading_before = flow.reading_bytes();
        flow.count(frame, &carried, &self.config);
        let reading_after = flow.reading_bytes();
        self.reading_bytes = self.reading_bytes + reading_after - reading_before;
        if reading_after > 0 && self.reading_bytes > self.config.reassembly_bytes_total {
            flow.stop_reading();
            self.reading_bytes -= reading_after;
        }
        let due = flow.due_report();
        self.recency.touch(slot);
        let reads = flow.speaks_dns() && carried.bulk.is_none();
        if reads && key.protocol == Protocol::Udp {
            let is_cut = u32::try_from(frame.payload.len()) != Ok(frame.payload_len);
            self.dns(frame.payload, is_cut, &key, slot, &carried, sink);
        }
        while reads
            && let Some(message) =
                slot_mut(&mut self.flows, slot).and_then(|flow| flow.next_dns(direction))
        {
            self.dns(&message, false, &key, slot, &carried, sink);
        }
        if let Some(phase) = due
            // A first report may wait for its deadline, a bound may not.
            && (phase != Phase::Open || sink.room() > 0)
        {
            self.report(slot, phase, at, sink);
        }
        if let Some(flow) = slot_mut(&mut self.flows, slot)
            && flow.is_due_earlier(at, &self.config)
        {
            self.arm(slot, at.mono_us);
        }
        if carried.depth < MAX_DEPTH
            && let Some(inner) = Inner::of(frame)
        {
            let within = self.tunnels.number(&inner, key.addresses(), carried.within);
            let (frame, wire_len) = inner.frame(at, direction);
            let carried = Carried {
                at,
                since: carried.since,
                direction,
                frames: 1,
                wire_bytes: u64::from(wire_len),
                segments: Segments::Of(0),
                within,
                tunnel: Some((inner.kind, flow_id)),
                depth: carried.depth + 1,
                bulk: None,
            };
            self.frame(&frame, carried, sink);
        }
    }

    /// The key of a frame's flow. Within a tunnel both directions may go the
    /// same way, as in one to which a switch mirrors its ports: there, a frame
    /// that answers a known flow is its answer.
    fn key(&self, frame: &Frame<'_>, mut carried: Carried) -> (FlowKey, Carried) {
        let key = FlowKey::new(frame.key, carried.direction, carried.within);
        if carried.within != 0 && self.slots.find(&key, &self.flows).is_none() {
            let direction = carried.direction.reversed();
            let answered = FlowKey::new(frame.key, direction, carried.within);
            if self.slots.find(&answered, &self.flows).is_some() {
                carried.direction = direction;
                return (answered, carried);
            }
        }
        (key, carried)
    }

    /// Reports a flow that goes on. One that was not reported yet may be
    /// counted with others instead.
    fn report(&mut self, slot: u32, phase: Phase, at: Moment, sink: &mut dyn FlowSink) {
        if phase == Phase::Open && !self.may_open(at.mono_us) {
            return self.close(slot, End::Evicted, at, sink);
        }
        let Some(flow) = slot_mut(&mut self.flows, slot) else {
            return;
        };
        if let Some(peer) = flow.key.peer().ip {
            self.names.touch(peer);
        }
        let bounds = sink.flow(phase, at, &flow.view(None, &self.names));
        flow.reported(at, bounds);
    }

    fn may_open(&mut self, now_us: u64) -> bool {
        let FlowConfig {
            open_burst,
            opens_per_second,
            ..
        } = self.config;
        self.openings.take(now_us, open_burst, opens_per_second)
    }

    /// Reports what is due, as far as the sink has room; answers when the next
    /// thing will be, in `mono_us`.
    pub fn tick(&mut self, now: Moment, sink: &mut dyn FlowSink) -> Option<u64> {
        while sink.room() > 0
            && let Some(slot) = self.deadlines.due(now.mono_us)
        {
            self.look_at(slot, now, sink);
        }
        let since_us = now.mono_us.checked_sub(self.config.dns_timeout_us);
        while let Some(query) = since_us.and_then(|since| self.questions.overdue(since)) {
            self.report_question(now, &query, sink);
        }
        let fragments_since_us = now.mono_us.checked_sub(self.config.fragment_timeout_us);
        while let Some(counted) = fragments_since_us.and_then(|since| self.fragments.overdue(since))
        {
            self.not_joined(&counted, sink);
        }
        self.tick_aggregates(now, sink);
        self.tick_folded(now, sink);
        self.due_us()
    }

    /// When [`tick`](Self::tick) is due next, in microseconds of
    /// [`Moment::mono_us`]. Every packet may bring that forward.
    pub fn due_us(&self) -> Option<u64> {
        let fragments_us = self
            .fragments
            .oldest_us()
            .map(|first| first.saturating_add(self.config.fragment_timeout_us));
        let dns_us = self
            .questions
            .oldest_us()
            .map(|asked| asked.saturating_add(self.config.dns_timeout_us));
        let sums_us = self.aggregates.next_us;
        let folded_us = self.folded.due_us();
        [
            self.deadlines.next_us(),
            dns_us,
            fragments_us,
            sums_us,
            folded_us,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Closes everything: flows that have not ended by themselves with
    /// [`End::Detached`].
    pub fn finish(&mut self, now: Moment, sink: &mut dyn FlowSink) {
        while let Some(counted) = self.fragments.overdue(u64::MAX) {
            self.not_joined(&counted, sink);
        }
        let mut open: Vec<(u64, u32)> = (0..)
            .zip(&self.flows)
            .filter_map(|(slot, flow)| Some((flow.as_ref()?.id(), slot)))
            .collect();
        open.sort_unstable();
        for (_, slot) in open {
            self.close(slot, End::Detached, now, sink);
        }
        for key in self.aggregates.keys() {
            self.close_sum(key, End::Detached, now, sink);
        }
        while let Some(query) = self.questions.overdue(u64::MAX) {
            self.report_question(now, &query, sink);
        }
        self.end_folded(now, sink);
    }

    /// Everything counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The slot of the flow that a frame belongs to; begins the flow if need be.
    fn slot(
        &mut self,
        key: FlowKey,
        frame: &Frame<'_>,
        carried: &Carried,
        sink: &mut dyn FlowSink,
    ) -> u32 {
        let at = carried.at;
        let known = self.known(key);
        if let Some(slot) = known {
            let succeeded = slot_mut(&mut self.flows, slot)
                .is_some_and(|flow| flow.is_succeeded_by(frame, carried.direction));
            if !succeeded {
                return slot;
            }
            self.close(slot, End::Idle, at, sink);
        }
        if self.slots.len() >= self.config.max_flows.max(1)
            && let Some(idlest) = self.recency.idlest()
        {
            self.close(idlest, End::Evicted, at, sink);
        }
        let id = self.config.numbering.after(self.totals.flows);
        self.totals.flows += 1;
        let mut flow = Flow::begin(id, key, frame, carried, &self.config);
        if known.is_some() {
            flow.succeeds();
        }
        self.reading_bytes += flow.reading_bytes();
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.flows.push(None);
                u32::try_from(self.flows.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.flows.get_mut(slot))
        {
            *place = Some(flow);
        }
        self.slots.insert(slot, &self.flows);
        self.latest = Some((key, slot));
        self.recency.add(slot);
        self.arm(slot, at.mono_us);
        slot
    }

    fn known(&mut self, key: FlowKey) -> Option<u32> {
        match self.latest {
            Some((latest, slot)) if latest == key => Some(slot),
            _ => {
                let slot = self.slots.find(&key, &self.flows)?;
                self.latest = Some((key, slot));
                Some(slot)
            }
        }
    }

    /// Sets a flow's deadline to what its state asks for.
    fn arm(&mut self, slot: u32, now_us: u64) {
        if let Some(flow) = slot_mut(&mut self.flows, slot) {
            // Later than now, so that a tick ends whatever the settings are.
            let next_us = flow.next_us(&self.config).max(now_us.saturating_add(1));
            self.deadlines.arm(slot, flow.deadline_us, next_us);
            flow.deadline_us = Some(next_us);
        }
    }

    /// Does what is due for one flow.
    fn look_at(&mut self, slot: u32, now: Moment, sink: &mut dyn FlowSink) {
        let config = &self.config;
        let Some(flow) = slot_mut(&mut self.flows, slot) else {
            return;
        };
        if flow.close_due_us(config) <= now.mono_us {
            return self.close(slot, End::Idle, now, sink);
        }
        let (phase, due, reports) = if flow.is_opened() {
            let interval_us = flow.reported_us.saturating_add(config.update_interval_us);
            let reports = flow.update_due(now.mono_us, config);
            (
                Phase::Update,
                interval_us <= now.mono_us || reports,
                reports,
            )
        } else {
            let due = flow.open_due_us(config) <= now.mono_us;
            (Phase::Open, due, due)
        };
        if reports {
            self.report(slot, phase, now, sink);
        }
        if due && let Some(flow) = slot_mut(&mut self.flows, slot) {
            flow.reported_us = now.mono_us;
        }
        self.arm(slot, now.mono_us);
    }

    /// Reports a flow for the last time and forgets it.
    fn close(&mut self, slot: u32, reason: End, at: Moment, sink: &mut dyn FlowSink) {
        let Some(mut flow) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.flows.get_mut(slot))
            .and_then(Option::take)
        else {
            return;
        };
        self.slots.remove(&flow.key, slot);
        self.latest = None;
        self.recency.remove(slot);
        self.deadlines.disarm(slot, flow.deadline_us);
        self.free.push(slot);
        self.reading_bytes -= flow.reading_bytes();
        flow.close(&self.config);
        if !flow.is_opened() && (reason == End::Evicted || !self.may_open(at.mono_us)) {
            return self.fold(&flow, at, sink);
        }
        if !flow.is_opened() {
            let bounds = sink.flow(Phase::Open, at, &flow.view(None, &self.names));
            flow.reported(at, bounds);
        }
        let end = flow.end(reason);
        sink.flow(Phase::Close, at, &flow.view(Some(end), &self.names));
    }

    pub(super) fn note(&mut self, slot: u32, finding: Finding) {
        if let Some(flow) = slot_mut(&mut self.flows, slot) {
            flow.note(finding);
        }
    }
}

fn slot_mut(flows: &mut [Option<Flow>], slot: u32) -> Option<&mut Flow> {
    flows.get_mut(usize::try_from(slot).ok()?)?.as_mut()
}
