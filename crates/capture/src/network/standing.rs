//! The comparison of flows and counters while the watch goes on.
//!
//! The counters are read, and once every frame that they have can be in the flows
//! these are compared: what the interface counted and no flow has is missing.
//! Frames that came meanwhile are in the flows too and stand for as many that are
//! missing, so the shorter the wait is, the less can hide.

use super::reconcile::{Around, difference};
use sandtrace_sys::netdev::Counters;
use sandtrace_wire::Totals;

/// Comparisons in a row that must show a loss on an interface that is busy: a frame
/// that is only late is in the flows at the next one.
const LOOKS: usize = 3;

/// What was compared so far.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Counters that were read but not compared yet.
    open: Option<Look>,
    /// What they were at the look before.
    last: Option<Counters>,
    /// What was missing at the latest looks: sent, received.
    short: [[u64; 2]; LOOKS],
    /// Missing frames that were told.
    told: u64,
    /// They were the same at the last two looks.
    is_still: bool,
}

/// Counters as they were at a moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) at_us: u64,
    pub(super) wall_ns: u64,
    pub(super) counters: Counters,
}

/// What the interface counted and no flow has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Frames beyond those that were told before.
    pub(super) frames: u64,
    /// All frames, told or not, that the sandbox sent, and that it received.
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Standing {
    /// Counters that are to be [compared](Self::compare) once all of their frames
    /// can be in the flows.
    pub(super) fn open(&mut self, look: Look) {
        self.is_still = self.last.replace(look.counters) == Some(look.counters);
        self.open = Some(look);
    }

    /// What is to be compared.
    pub(super) const fn to_compare(&self) -> Option<Look> {
        self.open
    }

    /// Gives up on comparing it: the flows are too far behind.
    pub(super) fn put_off(&mut self) {
        self.open = None;
    }

    /// Compares what the flows have by now with the counters. `lost` are frames of
    /// which it is known and told that they were not captured.
    pub(super) fn compare(&mut self, attach: Around, totals: Totals, lost: u64) -> Option<Missing> {
        let look = self.open.take()?;
        let least = difference(look.counters, attach.after);
        self.short.rotate_right(1);
        self.short[0] = [
            least.rx_packets.saturating_sub(totals.sent.packets),
            least.tx_packets.saturating_sub(totals.received.packets),
        ];
        let looks = if self.is_still { 1 } else { LOOKS };
        let shown = self.short.iter().take(looks).copied();
        let [sent, received] = shown.reduce(least_of).unwrap_or_default();
        let frames = (sent + received).checked_sub(lost.saturating_add(self.told))?;
        if frames == 0 {
            return None;
        }
        self.told += frames;
        Some(Missing {
            frames,
            sent,
            received,
        })
    }

    /// Whether the interface counted nothing between the last two looks.
    pub(super) const fn is_still(&self) -> bool {
        self.is_still
    }

    /// Missing frames that were told.
    pub(super) const fn told(&self) -> u64 {
        self.told
    }
}

fn least_of(one: [u64; 2], other: [u64; 2]) -> [u64; 2] {
    let ([sent, received], [also_sent, also_received]) = (one, other);
    [sent.min(also_sent), received.min(also_received)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_wire::WireCount;

    fn counters(rx_packets: u64) -> Counters {
        Counters {
            rx_packets,
            ..Counters::default()
        }
    }

    /// The interface has counted so many, and then the flows have so many.
    fn compare(standing: &mut Standing, rx: u64, sent: u64, lost: u64) -> Option<(u64, u64)> {
        standing.open(Look {
            at_us: 0,
            wall_ns: 0,
            counters: counters(1000 + rx),
        });
        let (before, after) = (counters(1000), counters(1000));
        let totals = Totals {
            sent: WireCount {
                packets: sent,
                wire_bytes: 0,
            },
            ..Totals::default()
        };
        let missing = standing.compare(Around { before, after }, totals, lost);
        missing.map(|missing| (missing.frames, missing.sent))
    }

    #[test]
    fn a_loss_on_a_busy_interface_is_told_once_it_was_seen_three_times() {
        let mut standing = Standing::default();
        let mut look = |rx, sent, lost| compare(&mut standing, rx, sent, lost);
        assert_eq!(look(100, 90, 0), None, "they may be late");
        assert_eq!(look(200, 210, 0), None, "and were");
        assert_eq!(look(300, 298, 0), None);
        assert_eq!(look(400, 395, 0), None);
        assert_eq!(look(500, 497, 0), Some((2, 2)));
        assert_eq!(look(600, 597, 0), Some((1, 3)), "not twice");
        assert_eq!(look(700, 690, 10), None, "drops are told elsewhere");
    }

    #[test]
    fn a_loss_on_an_interface_that_is_still_is_told_at_once() {
        let mut standing = Standing::default();
        assert_eq!(compare(&mut standing, 10, 8, 0), None);
        assert!(!standing.is_still());
        assert_eq!(compare(&mut standing, 10, 8, 0), Some((2, 2)));
        assert!(standing.is_still());
        assert_eq!(compare(&mut standing, 10, 8, 0), None);
    }
}
