//! An interface whose frames are counted by eBPF programs.
//!
//! The kernel keeps sums that never go back; what was taken in of them is
//! remembered here, so that nothing is counted twice or left out, whoever
//! reads when. A frame that was handed over brings the sums of its flow as
//! they stood before it. Between frames the table is read as a whole: a flow's
//! sums are taken in only when all its frames were, which keeps their order.

mod leaving;

use super::clocks::Clocks;
use leaving::{GRACE_NS, Leaving};
use sandtrace_sys::bpf::{
    BpfFlow, BpfFlowId, BpfFlowKey, BpfFrame, BpfFrameLosses, BpfFrames, BpfFramesReader, BpfSums,
    BpfTap,
};
use sandtrace_wire::{Bulk, BulkTcp, Direction, FlowSink, FlowTable, Packet};
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Length of an 802.1Q tag: the kernel took it out, the interface counted it.
const VLAN_TAG_BYTES: u32 = 4;
/// A flow that was silent this long is taken out of the kernel's table; its
/// next frame puts it there again. Nanoseconds.
const FORGET_NS: u64 = 10_000_000_000;
/// The same while the table is getting full.
const FORGET_SOON_NS: u64 = 1_000_000_000;

/// The programs on one interface, and what was taken in of their sums.
pub(super) struct Counted {
    tap: BpfTap,
    hub: Arc<BpfFrames>,
    /// Where its frames are handed over; `None` where that is shared with other
    /// interfaces, so that somebody else reads and tells.
    own: Option<BpfFramesReader>,
    /// The last look found frames, so more may come without a wake-up.
    lively: bool,
    taken: Intake,
    leaving: Leaving,
    losses: BpfFrameLosses,
    /// Frames that were read but not taken in, since this was last asked.
    missed: u64,
}

/// What was taken in of each flow.
struct Intake {
    flows: HashMap<BpfFlowId, Taken>,
    /// Most flows in the kernel's table.
    room: usize,
}

/// What was taken in of one flow.
#[derive(Clone, Copy, Default)]
struct Taken {
    born_ns: u64,
    sums: [BpfSums; 2],
    /// Frames that were handed over, from 0 again after 32 bits.
    events: u32,
    /// When it was asked to leave the kernel's table, in nanoseconds since boot.
    asked_ns: Option<u64>,
    /// It is no longer in the kernel's table, and this many were in all.
    gone_after: Option<u32>,
}

/// What was lost since this was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    /// Frames that are in no sum.
    pub(super) frames: u64,
    /// The same, because nobody could take them.
    pub(super) left_out: u64,
    /// Frames that were counted, but not read.
    pub(super) unread: u64,
}

impl Counted {
    /// An interface with programs and tables of its own, which have room for
    /// `room` flows.
    pub(super) fn alone(tap: BpfTap, reader: BpfFramesReader, room: u32) -> Self {
        let hub = Arc::clone(reader.hub());
        Self::new(tap, hub, Some(reader), room)
    }

    /// One of many that share them.
    pub(super) fn among_many(tap: BpfTap, hub: Arc<BpfFrames>, room: u32) -> Self {
        Self::new(tap, hub, None, room)
    }

    fn new(tap: BpfTap, hub: Arc<BpfFrames>, own: Option<BpfFramesReader>, room: u32) -> Self {
        Self {
            tap,
            hub,
            own,
            lively: false,
            taken: Intake {
                flows: HashMap::new(),
                room: usize::try_from(room).unwrap_or(usize::MAX),
            },
            leaving: Leaving::default(),
            losses: BpfFrameLosses::default(),
            missed: 0,
        }
    }

    /// Where its frames are read, unless somebody else does that.
    pub(super) fn reader(&self) -> Option<&BpfFramesReader> {
        self.own.as_ref()
    }

    /// In error when the interface went down.
    pub(super) fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.tap.alarm()
    }

    /// The error that [`alarm`](Self::alarm) is in, which is thereby forgotten.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.tap.take_error()
    }

    /// Its number among those that share the tables.
    pub(super) fn number(&self) -> u32 {
        self.tap.owner()
    }

    /// When frames must be looked for again at the latest.
    pub(super) fn look_again(&self) -> Option<Duration> {
        self.lively.then_some(BpfFramesReader::LOOK_AGAIN)
    }

    /// Reads up to `most` of the frames that were handed over. Answers how many.
    pub(super) fn read(
        &mut self,
        most: usize,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> usize {
        let Some(reader) = &mut self.own else {
            return 0;
        };
        let clocks = Clocks::read();
        let taken = &mut self.taken;
        let number = self.tap.owner();
        let read = reader.read(most, |frame| {
            if frame.owner == number {
                taken.hear(frame, clocks, flows, sink);
            }
        });
        self.lively = read > 0;
        read
    }

    /// Takes in a frame that somebody else has read.
    pub(super) fn hear(
        &mut self,
        frame: &BpfFrame<'_>,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) {
        self.taken.hear(frame, clocks, flows, sink);
    }

    /// Leaves out a frame that somebody else has read, but what was counted
    /// before it.
    pub(super) fn miss(
        &mut self,
        frame: &BpfFrame<'_>,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) {
        if let Some(flow) = &frame.flow {
            announce(&mut self.taken.flows, flow, clocks, flows, sink);
        }
        self.missed = self.missed.saturating_add(1);
    }

    /// Takes in what was only counted since, and forgets flows that are silent.
    pub(super) fn take_sums(
        &mut self,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> io::Result<()> {
        if self.taken.flows.is_empty() && self.tap.losses() == self.losses {
            return Ok(());
        }
        let clocks = Clocks::read();
        let mut silent = Vec::new();
        let number = self.tap.owner();
        let taken = &mut self.taken;
        let silent_since_ns = taken.silent_since_ns() + GRACE_NS;
        self.hub.flows(|flow, events| {
            if flow.owner() == number
                && taken.take_sums(&flow, events, clocks, flows, sink)
                && last_ns(&flow) < silent_since_ns
            {
                silent.push(flow);
            }
        })?;
        for flow in silent {
            self.part_with(&flow, clocks, flows, sink)?;
        }
        self.part(clocks, flows, sink)
    }

    /// Takes in what somebody else has read of the table. Flows that are to leave wait
    /// for [`part`](Self::part).
    pub(super) fn take_sum(
        &mut self,
        flow: &BpfFlow,
        events: u32,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> io::Result<()> {
        let clocks = Clocks::read();
        let is_whole = self.taken.take_sums(flow, events, clocks, flows, sink);
        if is_whole {
            return self.part_with(flow, clocks, flows, sink);
        }
        Ok(())
    }

    /// Takes in the sums of every flow for the last time, when all frames were
    /// read and nothing more is counted.
    pub(super) fn take_last_sums(
        &mut self,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> io::Result<()> {
        let clocks = Clocks::read();
        let mut ids: Vec<_> = self.taken.flows.keys().copied().collect();
        if self.tap.losses().unread > 0 {
            // Some may have flows of which no frame was ever read.
            let number = self.tap.owner();
            self.hub.flows(|flow, _| {
                if flow.owner() == number && !self.taken.flows.contains_key(&flow.id) {
                    ids.push(flow.id);
                }
            })?;
        }
        for id in ids {
            self.forget(&id, clocks, flows, sink)?;
        }
        Ok(())
    }

    /// Takes a flow out of the kernel's table, and its sums in for the last time.
    fn forget(
        &mut self,
        id: &BpfFlowId,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> io::Result<()> {
        let Some((flow, events)) = self.tap.take(id)? else {
            return Ok(());
        };
        self.taken.forget(&flow, events, clocks, flows, sink);
        Ok(())
    }

    /// Whether frames of it were handed over that were not read yet.
    pub(super) fn waits(&self) -> bool {
        self.tap.waits()
    }

    /// Counts and hands over nothing from now on.
    pub(super) fn stop(&self) {
        self.tap.close();
    }

    /// What was lost since this was last asked.
    pub(super) fn lost(&mut self) -> Lost {
        let losses = self.tap.losses();
        let before = std::mem::replace(&mut self.losses, losses);
        let frames = |losses: BpfFrameLosses| losses.frames.iter().sum::<u64>();
        Lost {
            frames: frames(losses).saturating_sub(frames(before)),
            left_out: std::mem::take(&mut self.missed),
            unread: losses.unread.saturating_sub(before.unread),
        }
    }
}

impl Intake {
    fn hear(
        &mut self,
        frame: &BpfFrame<'_>,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) {
        if let Some(flow) = &frame.flow {
            announce(&mut self.flows, flow, clocks, flows, sink);
        }
        let packet = packet(frame, clocks);
        flows.packet_to_cut(&packet, frame.segment, sink);
    }

    /// Takes a flow's sums in where all its frames were read; whether they were.
    fn take_sums(
        &mut self,
        flow: &BpfFlow,
        events: u32,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> bool {
        let is_whole = is_read_up_to(&self.flows, flow, events);
        if is_whole {
            take_in(&mut self.flows, flow, clocks, flows, sink);
        }
        is_whole
    }

    /// A flow is no longer in the kernel's table; these are its last sums.
    fn forget(
        &mut self,
        flow: &BpfFlow,
        events: u32,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) {
        let is_whole = is_read_up_to(&self.flows, flow, events);
        take_in(&mut self.flows, flow, clocks, flows, sink);
        if is_whole {
            self.flows.remove(&flow.id);
        } else if let Some(taken) = self.flows.get_mut(&flow.id) {
            // It woke up just now: its frames are still to be read.
            taken.gone_after = Some(events);
        }
    }

    /// Flows that were silent since then are forgotten.
    fn silent_since_ns(&self) -> u64 {
        let crowded = self.flows.len() > self.room / 4 * 3;
        let silence_ns = if crowded { FORGET_SOON_NS } else { FORGET_NS };
        let now_ns = sandtrace_sys::clock::boot_us().saturating_mul(1000);
        now_ns.saturating_sub(silence_ns)
    }
}

/// A frame of this flow was handed over: what was counted before it comes first.
fn announce(
    taken: &mut HashMap<BpfFlowId, Taken>,
    flow: &BpfFlow,
    clocks: Clocks,
    flows: &mut FlowTable,
    sink: &mut dyn FlowSink,
) {
    take_in(taken, flow, clocks, flows, sink);
    let Some(known) = taken.get_mut(&flow.id) else {
        return;
    };
    if known.born_ns != flow.born_ns {
        return;
    }
    known.events = known.events.wrapping_add(1);
    // Counts of 32 bits go round.
    let is_read = |events: u32| known.events.wrapping_sub(events).cast_signed() >= 0;
    if known.gone_after.is_some_and(is_read) {
        taken.remove(&flow.id);
    }
}

/// Whether every frame that was handed over of a flow was read.
fn is_read_up_to(taken: &HashMap<BpfFlowId, Taken>, flow: &BpfFlow, events: u32) -> bool {
    match taken.get(&flow.id) {
        Some(taken) if taken.born_ns == flow.born_ns => taken.events == events,
        _ => events == 0,
    }
}

/// Takes in what sums have grown by since they were last taken in.
fn take_in(
    taken: &mut HashMap<BpfFlowId, Taken>,
    flow: &BpfFlow,
    clocks: Clocks,
    flows: &mut FlowTable,
    sink: &mut dyn FlowSink,
) {
    let known = taken.entry(flow.id).or_default();
    if known.born_ns > flow.born_ns {
        // Of an earlier flow of this key, whose sums were taken in at its end.
        return;
    }
    if known.born_ns < flow.born_ns {
        *known = Taken {
            born_ns: flow.born_ns,
            ..Taken::default()
        };
    }
    let [sent, received] = flow.sums;
    let [taken_sent, taken_received] = &mut known.sums;
    let mut both = [
        (Direction::FromSandbox, sent, taken_sent),
        (Direction::ToSandbox, received, taken_received),
    ];
    both.sort_by_key(|(_, sums, _)| sums.last_ns);
    for (direction, sums, before) in both {
        let Some(bulk) = grown_by(flow, direction, sums, before, clocks) else {
            continue;
        };
        *before = sums;
        flows.bulk(&bulk, sink);
    }
}

fn grown_by(
    flow: &BpfFlow,
    direction: Direction,
    sums: BpfSums,
    before: &BpfSums,
    clocks: Clocks,
) -> Option<Bulk> {
    let frames = sums.frames.checked_sub(before.frames)?;
    let wire_bytes = sums.bytes.saturating_sub(before.bytes);
    if frames == 0 {
        return None;
    }
    let key = BpfFlowKey::parse(&flow.id)?;
    Some(Bulk {
        at: clocks.at_boot(sums.last_ns),
        payload_at: clocks.at_boot(sums.payload_ns),
        direction,
        tcp: key.is_tcp.then_some(BulkTcp {
            next: sums.next,
            ack: sums.ack,
        }),
        sandbox: key.sandbox,
        peer: key.peer,
        vlan: Some(key.vlan).filter(|id| *id != 0),
        frames,
        segments: frames + u64::from(sums.segments.wrapping_sub(before.segments)),
        wire_bytes,
        payload: sums.payload.saturating_sub(before.payload),
    })
}

fn last_ns(flow: &BpfFlow) -> u64 {
    let [sent, received] = flow.sums;
    sent.last_ns.max(received.last_ns).max(flow.born_ns)
}

fn packet<'a>(frame: &BpfFrame<'a>, clocks: Clocks) -> Packet<'a> {
    let tag = if frame.vlan_tci.is_some() {
        VLAN_TAG_BYTES
    } else {
        0
    };
    Packet {
        at: clocks.at_boot(frame.at_ns),
        direction: if frame.outgoing {
            Direction::ToSandbox
        } else {
            Direction::FromSandbox
        },
        bytes: frame.captured,
        wire_len: frame.length.saturating_add(tag),
        // The low 12 bits are the identifier, the rest priority (IEEE 802.1Q).
        vlan: frame.vlan_tci.map(|tci| tci & 0x0fff),
    }
}
