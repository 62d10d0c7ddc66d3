//! When each flow has to be looked at next.

use std::collections::BTreeSet;

/// One deadline per flow, in order: no scan over flows that are not due.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    ordered: BTreeSet<(u64, u32)>,
    /// The first of them, which every packet asks for.
    first: Option<(u64, u32)>,
}

impl Deadlines {
    /// Sets a flow's deadline in place of its former one.
    pub(crate) fn arm(&mut self, flow: u32, former_us: Option<u64>, at_us: u64) {
        if former_us != Some(at_us) {
            self.disarm(flow, former_us);
            let own = (at_us, flow);
            self.ordered.insert(own);
            self.first = Some(self.first.map_or(own, |first| first.min(own)));
        }
    }

    /// Takes a flow's deadline away.
    pub(crate) fn disarm(&mut self, flow: u32, former_us: Option<u64>) {
        if let Some(former_us) = former_us {
            let own = (former_us, flow);
            self.ordered.remove(&own);
            if self.first == Some(own) {
                self.first = self.ordered.first().copied();
            }
        }
    }

    /// The flow with the earliest deadline, if that is at or before `now_us`.
    pub(crate) fn due(&self, now_us: u64) -> Option<u32> {
        let (at_us, flow) = self.first?;
        (at_us <= now_us).then_some(flow)
    }

    /// The earliest deadline.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.first.map(|(at_us, _)| at_us)
    }
}
