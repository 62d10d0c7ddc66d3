//! The table itself.

use crate::config::FlowConfig;
use crate::dns::DnsTransaction;
use crate::flow::Totals;
use crate::packet::{Moment, Packet};
use crate::view::{Bounds, FlowView, Phase};

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
}

impl FlowTable {
    /// An empty table.
    #[must_use]
    pub fn new(config: FlowConfig) -> Self {
        Self {
            config,
            totals: Totals::default(),
        }
    }

    /// Counts one packet.
    pub fn packet(&mut self, packet: &Packet<'_>, _sink: &mut dyn FlowSink) {
        self.totals.count(packet.direction, packet.wire_len);
    }

    /// Reports what is due; answers when the next thing will be, in `mono_us`.
    pub fn tick(&mut self, now: Moment, _sink: &mut dyn FlowSink) -> Option<u64> {
        now.mono_us.checked_add(self.config.open_delay_us)
    }

    /// Closes everything.
    pub fn finish(&mut self, _now: Moment, _sink: &mut dyn FlowSink) {}

    /// Everything counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }
}
