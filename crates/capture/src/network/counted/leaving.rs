//! Flows on their way out of the kernel's table.
//!
//! A program may be about to count in a flow while it is taken out. So one that is
//! silent is asked to leave, and taken out at a later look where no frame came since:
//! by then every program that was on its way has ended.

use super::Counted;
use crate::network::clocks::Clocks;
use sandtrace_sys::bpf::{BpfFlow, BpfFlowId, BpfTap};
use sandtrace_wire::{FlowSink, FlowTable};
use std::io;

/// How long a program may take, which needs microseconds, before a flow that was asked
/// is let go. Nanoseconds.
pub(super) const GRACE_NS: u64 = 500_000_000;

/// Those that wait until there are enough for one call.
#[derive(Default)]
pub(super) struct Leaving {
    to_ask: Vec<BpfFlowId>,
    asked: Vec<BpfFlowId>,
}

impl Counted {
    /// A flow was silent: it is asked to leave, or let go where it was asked.
    pub(super) fn part_with(
        &mut self,
        flow: &BpfFlow,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> io::Result<()> {
        let (now_ns, silent_since_ns) = (clocks.read_us() * 1000, self.taken.silent_since_ns());
        let Some(taken) = self.taken.flows.get(&flow.id) else {
            return Ok(());
        };
        let last_ns = super::last_ns(flow);
        let waiting = match taken.asked_ns {
            None if last_ns < silent_since_ns + GRACE_NS => &mut self.leaving.to_ask,
            Some(at) if last_ns < silent_since_ns && at + GRACE_NS <= now_ns => {
                &mut self.leaving.asked
            }
            _ => return Ok(()),
        };
        waiting.push(flow.id);
        if waiting.len() < BpfTap::MOST_RELEASED {
            return Ok(());
        }
        self.part(clocks, flows, sink)
    }

    /// Asks those that are to be asked, and takes out those that were.
    pub(in crate::network) fn part(
        &mut self,
        clocks: Clocks,
        flows: &mut FlowTable,
        sink: &mut dyn FlowSink,
    ) -> io::Result<()> {
        let Leaving { to_ask, asked } = std::mem::take(&mut self.leaving);
        let taken = &mut self.taken;
        if !asked.is_empty() {
            self.tap.release(&asked, |id, left| match left {
                Some((flow, events)) => taken.forget(&flow, events, clocks, flows, sink),
                None => taken.ask(id, None),
            })?;
        }
        if !to_ask.is_empty() {
            self.tap.ask(&to_ask)?;
            let now_ns = clocks.read_us() * 1000;
            to_ask.iter().for_each(|id| taken.ask(id, Some(now_ns)));
        }
        Ok(())
    }
}

impl super::Intake {
    fn ask(&mut self, id: &BpfFlowId, at_ns: Option<u64>) {
        if let Some(taken) = self.flows.get_mut(id) {
            taken.asked_ns = at_ns;
        }
    }
}
