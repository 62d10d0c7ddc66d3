//! The table itself.

use crate::config::FlowConfig;
use crate::dns::{Asked, DnsTransaction, Message, PendingQuestions};
use crate::findings::Finding;
use crate::flow::Totals;
use crate::flow::deadlines::Deadlines;
use crate::flow::one::Flow;
use crate::flow::recency::Recency;
use crate::frame::Frame;
use crate::key::FlowKey;
use crate::names::NameBook;
use crate::packet::{Direction, Moment, Packet};
use crate::view::{Bounds, End, FlowView, Phase, Protocol};
use std::collections::HashMap;
use std::sync::Arc;

/// Where a table reports to.
pub trait FlowSink {
    /// Called at the open, at updates and at the close of a flow. What it
    /// answers bounds the flow from now on, in place of the former bounds: an
    /// update is reported at once when a bound is crossed.
    fn flow(&mut self, phase: Phase, at: Moment, flow: &FlowView<'_>) -> Bounds;

    /// Called once for a question: at its matched answer, or when none came in
    /// time. An answer that matches no question is reported too.
    fn dns(&mut self, at: Moment, query: &DnsTransaction);
}

/// All flows of one sandbox.
#[derive(Debug)]
pub struct FlowTable {
    config: FlowConfig,
    totals: Totals,
    slots: HashMap<FlowKey, u32>,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    recency: Recency,
    deadlines: Deadlines,
    /// Bytes in use for reading the starts of connections.
    reading_bytes: usize,
    names: NameBook,
    questions: PendingQuestions,
}

const DNS_PORT: u16 = 53;

impl FlowTable {
    /// An empty table.
    #[must_use]
    pub fn new(config: FlowConfig) -> Self {
        Self {
            totals: Totals::default(),
            slots: HashMap::new(),
            flows: Vec::new(),
            free: Vec::new(),
            recency: Recency::default(),
            deadlines: Deadlines::default(),
            reading_bytes: 0,
            names: NameBook::new(config.max_named_addresses),
            questions: PendingQuestions::default(),
            config,
        }
    }

    /// Counts one packet, and reports what it makes due.
    pub fn packet(&mut self, packet: &Packet<'_>, sink: &mut dyn FlowSink) {
        let Packet { at, direction, .. } = *packet;
        let captured = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
        let packet = Packet {
            wire_len: packet.wire_len.max(captured),
            ..*packet
        };
        self.totals.count(direction, packet.wire_len);
        let frame = Frame::parse(&packet);
        let key = FlowKey::new(frame.key, direction);
        let slot = self.slot(key, &frame, at, direction, sink);
        let Some(flow) = slot_mut(&mut self.flows, slot) else {
            return;
        };
        let reading_before = flow.reading_bytes();
        flow.count(&frame, at, direction, packet.wire_len, &self.config);
        let reading_after = flow.reading_bytes();
        self.reading_bytes = self.reading_bytes + reading_after - reading_before;
        if reading_after > 0 && self.reading_bytes > self.config.reassembly_bytes_total {
            flow.stop_reading();
            self.reading_bytes -= reading_after;
        }
        let due_earlier = flow.is_due_earlier(&self.config);
        if let Some(phase) = flow.due_report() {
            let bounds = sink.flow(phase, at, &flow.view(None, &self.names));
            flow.reported(at, bounds);
        }
        if due_earlier {
            self.arm(slot, at.mono_us);
        }
        self.recency.touch(slot);
        if key.protocol == Protocol::Udp && key.peer().port == Some(DNS_PORT) {
            self.dns(&frame, &key, slot, at, direction, sink);
        }
    }

    /// Reports what is due; answers when the next thing will be, in `mono_us`.
    pub fn tick(&mut self, now: Moment, sink: &mut dyn FlowSink) -> Option<u64> {
        while let Some(slot) = self.deadlines.due(now.mono_us) {
            self.look_at(slot, now, sink);
        }
        let since_us = now.mono_us.checked_sub(self.config.dns_timeout_us);
        while let Some(query) = since_us.and_then(|since| self.questions.overdue(since)) {
            sink.dns(now, &query);
        }
        let dns_us = self
            .questions
            .oldest_us()
            .map(|asked| asked.saturating_add(self.config.dns_timeout_us));
        [self.deadlines.next_us(), dns_us]
            .into_iter()
            .flatten()
            .min()
    }

    /// Closes everything: flows that have not ended by themselves with
    /// [`End::Detached`].
    pub fn finish(&mut self, now: Moment, sink: &mut dyn FlowSink) {
        let mut open: Vec<(u64, u32)> = (0..)
            .zip(&self.flows)
            .filter_map(|(slot, flow)| Some((flow.as_ref()?.id(), slot)))
            .collect();
        open.sort_unstable();
        for (_, slot) in open {
            self.close(slot, End::Detached, now, sink);
        }
        while let Some(query) = self.questions.overdue(u64::MAX) {
            sink.dns(now, &query);
        }
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
        at: Moment,
        direction: Direction,
        sink: &mut dyn FlowSink,
    ) -> u32 {
        if let Some(&slot) = self.slots.get(&key) {
            let succeeded =
                slot_mut(&mut self.flows, slot).is_some_and(|flow| flow.is_succeeded_by(frame));
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
        self.totals.flows += 1;
        let flow = Flow::begin(self.totals.flows, key, frame, at, direction, &self.config);
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
        self.slots.insert(key, slot);
        self.recency.add(slot);
        self.arm(slot, at.mono_us);
        slot
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
        let due = if flow.is_opened() {
            flow.reported_us.saturating_add(config.update_interval_us) <= now.mono_us
        } else {
            flow.open_due_us(config) <= now.mono_us
        };
        if due {
            let phase = if flow.is_opened() {
                Phase::Update
            } else {
                Phase::Open
            };
            if phase == Phase::Open || flow.went_on() {
                let bounds = sink.flow(phase, now, &flow.view(None, &self.names));
                flow.reported(now, bounds);
            }
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
        self.slots.remove(&flow.key);
        self.recency.remove(slot);
        self.deadlines.disarm(slot, flow.deadline_us);
        self.free.push(slot);
        self.reading_bytes -= flow.reading_bytes();
        flow.close(&self.config);
        if !flow.is_opened() {
            let bounds = sink.flow(Phase::Open, at, &flow.view(None, &self.names));
            flow.reported(at, bounds);
        }
        let end = flow.end(reason);
        sink.flow(Phase::Close, at, &flow.view(Some(end), &self.names));
    }

    /// Joins questions and answers.
    fn dns(
        &mut self,
        frame: &Frame<'_>,
        key: &FlowKey,
        slot: u32,
        at: Moment,
        direction: Direction,
        sink: &mut dyn FlowSink,
    ) {
        let (sandbox, peer) = (key.sandbox(), key.peer());
        let (Some(client), Some(client_port), Some(resolver), Some(resolver_port)) =
            (sandbox.ip, sandbox.port, peer.ip, peer.port)
        else {
            return;
        };
        let asked = Asked {
            client,
            client_port,
            resolver,
            resolver_port,
            accepted: self.config.accepted_resolvers.contains(&resolver),
        };
        let message = Message::parse(frame.payload)
            .filter(|message| message.is_response == (direction == Direction::ToSandbox));
        let Some(message) = message else {
            return self.note(slot, Finding::DnsMalformed);
        };
        if direction == Direction::FromSandbox {
            let max = self.config.max_dns_pending;
            if let Some(displaced) = self.questions.ask(at, asked, message, max) {
                sink.dns(at, &displaced);
            }
            return;
        }
        let reply = self.questions.reply(at, asked, message);
        match &reply.message {
            Some(message) => self.learn(message, asked, at),
            None => self.note(slot, Finding::DnsUnmatchedAnswer),
        }
        sink.dns(at, &reply.transaction);
    }

    fn learn(&mut self, message: &Message, asked: Asked, at: Moment) {
        if message.rcode != 0 {
            return;
        }
        let name = Arc::from(message.question.name.as_str());
        for address in message.addresses() {
            self.names
                .learn(address, &name, asked.resolver, asked.accepted, at);
        }
    }

    fn note(&mut self, slot: u32, finding: Finding) {
        if let Some(flow) = slot_mut(&mut self.flows, slot) {
            flow.note(finding);
        }
    }
}

fn slot_mut(flows: &mut [Option<Flow>], slot: u32) -> Option<&mut Flow> {
    flows.get_mut(usize::try_from(slot).ok()?)?.as_mut()
}
