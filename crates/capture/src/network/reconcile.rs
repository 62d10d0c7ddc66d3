//! Are the flows all that crossed the interface?

use sandtrace_event::{Count, Reconciliation};
use sandtrace_sys::netdev::Counters;
use sandtrace_wire::Totals;
use std::collections::VecDeque;

/// Two readings of the counters around one moment: what the flows saw by
/// then lies between them, and equals both where the interface was quiet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    pub(super) before: Counters,
    pub(super) after: Counters,
}

/// Compares the counters around attach and detach with the flows' sums.
pub(super) fn reconcile(
    interface: &str,
    attach: Around,
    detach: Around,
    totals: Totals,
    ring_drops: u64,
) -> Reconciliation {
    let most = difference(detach.after, attach.before);
    let least = difference(detach.before, attach.after);
    let sent = (least.rx_packets..=most.rx_packets).contains(&totals.sent.packets)
        && (least.rx_bytes..=most.rx_bytes).contains(&totals.sent.wire_bytes);
    let received =
        totals.received.packets >= least.tx_packets && totals.received.wire_bytes >= least.tx_bytes;
    Reconciliation {
        flow_bytes_received: Count(totals.received.wire_bytes),
        flow_bytes_sent: Count(totals.sent.wire_bytes),
        flow_packets_received: Count(totals.received.packets),
        flow_packets_sent: Count(totals.sent.packets),
        interface: interface.to_owned(),
        interface_bytes_received: Count(least.tx_bytes),
        interface_bytes_sent: Count(least.rx_bytes),
        interface_packets_received: Count(least.tx_packets),
        interface_packets_sent: Count(least.rx_packets),
        matches: sent && received,
        ring_drops: Count(ring_drops),
    }
}

/// The same comparison while the watch goes on: whatever the interface counted
/// some seconds ago is in the flows by now, where everything was read. Frames that
/// came since are in them too and stand for as many that are missing: a loss shows
/// once it is larger than that, or the interface is quiet for so long.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// When the counters were read, in microseconds, and what they were.
    looks: VecDeque<(u64, Counters)>,
    /// Missing frames that were told.
    told: u64,
    /// The counters stood still since that look of some seconds ago.
    is_still: bool,
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

/// Frames are in the flows after the ring hands them over (milliseconds) or the
/// programs' sums are looked at (a second), each a little late under load.
const SETTLED_US: u64 = 3_000_000;

impl Standing {
    /// Compares what the flows have with the counters of some seconds ago.
    /// `settled` says that all frames were read; `lost` are those of which it is
    /// known and told that they were not.
    pub(super) fn look(
        &mut self,
        (now_us, now): (u64, Counters),
        attach: Around,
        totals: Totals,
        lost: u64,
        settled: bool,
    ) -> Option<Missing> {
        self.looks.push_back((now_us, now));
        let old = |(at_us, _): &(u64, Counters)| now_us.saturating_sub(*at_us) >= SETTLED_US;
        let mut due = None;
        while self.looks.front().is_some_and(old) {
            due = self.looks.pop_front();
        }
        self.is_still = due.is_some_and(|(_, then)| then == now);
        let (_, then) = due.filter(|_| settled)?;
        let least = difference(then, attach.after);
        let sent = least.rx_packets.saturating_sub(totals.sent.packets);
        let received = least.tx_packets.saturating_sub(totals.received.packets);
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

    /// Whether the interface counted nothing for some seconds, so that all that
    /// it counted before was compared.
    pub(super) const fn is_still(&self) -> bool {
        self.is_still
    }

    /// Missing frames that were told.
    pub(super) const fn told(&self) -> u64 {
        self.told
    }
}

fn difference(later: Counters, earlier: Counters) -> Counters {
    Counters {
        rx_bytes: later.rx_bytes.saturating_sub(earlier.rx_bytes),
        rx_packets: later.rx_packets.saturating_sub(earlier.rx_packets),
        tx_bytes: later.tx_bytes.saturating_sub(earlier.tx_bytes),
        tx_dropped: later.tx_dropped.saturating_sub(earlier.tx_dropped),
        tx_packets: later.tx_packets.saturating_sub(earlier.tx_packets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_wire::WireCount;

    fn counters(rx_packets: u64, tx_packets: u64) -> Counters {
        Counters {
            rx_bytes: rx_packets * 100,
            rx_packets,
            tx_bytes: tx_packets * 100,
            tx_dropped: 0,
            tx_packets,
        }
    }

    fn quiet(at: Counters) -> Around {
        Around {
            before: at,
            after: at,
        }
    }

    fn seen(sent: u64, received: u64) -> Totals {
        let count = |packets| WireCount {
            packets,
            wire_bytes: packets * 100,
        };
        Totals {
            sent: count(sent),
            received: count(received),
            flows: 1,
        }
    }

    #[track_caller]
    fn check(detach: Around, totals: Totals, matches: bool) {
        let attach = quiet(counters(1000, 2000));
        assert_eq!(
            reconcile("tap0", attach, detach, totals, 0).matches,
            matches
        );
    }

    #[test]
    fn a_quiet_interface_must_match_exactly() {
        let end = quiet(counters(1010, 2020));
        check(end, seen(10, 20), true);
        check(end, seen(9, 20), false);
        check(end, seen(11, 20), false);
        check(end, seen(10, 19), false);
    }

    #[test]
    fn frames_the_vmm_never_took_are_no_loss() {
        check(quiet(counters(1010, 2020)), seen(10, 23), true);
    }

    #[test]
    fn what_is_missing_is_told_once_while_the_watch_goes_on() {
        let attach = quiet(counters(1000, 2000));
        let mut standing = Standing::default();
        let mut look = |second: u64, rx: u64, seen_sent, lost, settled| {
            let now = (second * 1_000_000, counters(1000 + rx, 2000));
            let missing = standing.look(now, attach, seen(seen_sent, 0), lost, settled);
            missing.map(|missing| (missing.frames, missing.sent))
        };
        assert_eq!(look(0, 10, 0, 0, true), None, "they may be on their way");
        assert_eq!(look(1, 20, 0, 0, true), None);
        assert_eq!(look(3, 30, 10, 0, true), None, "all of the first look");
        assert_eq!(look(4, 30, 13, 0, false), None, "not all was read");
        assert_eq!(look(6, 30, 28, 0, true), Some((2, 2)));
        assert_eq!(look(9, 40, 28, 0, true), None, "not twice");
        assert_eq!(
            look(12, 40, 28, 4, true),
            Some((6, 12)),
            "drops are told elsewhere"
        );
    }

    #[test]
    fn an_interface_is_still_once_nothing_is_left_to_compare() {
        let mut standing = Standing::default();
        let mut look = |second: u64, rx: u64| {
            let now = (second * 1_000_000, counters(1000 + rx, 2000));
            standing.look(now, quiet(counters(1000, 2000)), seen(rx, 0), 0, true);
            standing.is_still()
        };
        let still = [
            (0, 0),
            (1, 0),
            (2, 5),
            (3, 5),
            (4, 5),
            (5, 5),
            (6, 5),
            (11, 5),
        ];
        let still = still.map(|(second, rx)| look(second, rx));
        assert_eq!(still, [false, false, false, false, false, true, true, true]);
        assert!(!look(16, 6), "a frame came in between");
    }

    #[test]
    fn a_busy_interface_must_match_within_its_readings() {
        let busy = Around {
            before: counters(1010, 2020),
            after: counters(1015, 2020),
        };
        check(busy, seen(12, 20), true);
        check(busy, seen(16, 20), false);
    }
}
