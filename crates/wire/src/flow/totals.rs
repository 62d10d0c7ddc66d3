//! Sums over everything a table ever counted.

use crate::packet::Direction;

/// Frames and their bytes one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCount {
    /// Frames.
    pub packets: u64,
    /// Bytes of whole frames.
    pub wire_bytes: u64,
}

/// Everything a table ever counted, to be reconciled with the interface's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What the sandbox sent.
    pub sent: WireCount,
    /// What it received.
    pub received: WireCount,
    /// Flows ever begun.
    pub flows: u64,
}

impl Totals {
    pub(crate) fn count(&mut self, direction: Direction, packets: u64, wire_bytes: u64) {
        let side = match direction {
            Direction::FromSandbox => &mut self.sent,
            Direction::ToSandbox => &mut self.received,
        };
        side.packets += packets;
        side.wire_bytes += wire_bytes;
    }
}
