//! When each flow has to be looked at next.

use crate::earliest::Earliest;

/// One deadline per flow, in order: no scan over flows that are not due.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(Earliest<(u64, u32), ()>);

impl Deadlines {
    /// Sets a flow's deadline in place of its former one.
    pub(crate) fn arm(&mut self, flow: u32, former_us: Option<u64>, at_us: u64) {
        if former_us != Some(at_us) {
            self.disarm(flow, former_us);
            self.0.insert((at_us, flow), ());
        }
    }

    /// Takes a flow's deadline away.
    pub(crate) fn disarm(&mut self, flow: u32, former_us: Option<u64>) {
        if let Some(former_us) = former_us {
            self.0.remove((former_us, flow));
        }
    }

    /// The flow with the earliest deadline, if that is at or before `now_us`.
    pub(crate) fn due(&self, now_us: u64) -> Option<u32> {
        let (at_us, flow) = self.0.first()?;
        (at_us <= now_us).then_some(flow)
    }

    /// The earliest deadline.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.0.first().map(|(at_us, _)| at_us)
    }
}
