//! Are the flows all that crossed the interface?

use sandtrace_event::{Count, Reconciliation};
use sandtrace_sys::netdev::Counters;
use sandtrace_wire::Totals;

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

pub(super) fn difference(later: Counters, earlier: Counters) -> Counters {
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
    fn a_busy_interface_must_match_within_its_readings() {
        let busy = Around {
            before: counters(1010, 2020),
            after: counters(1015, 2020),
        };
        check(busy, seen(12, 20), true);
        check(busy, seen(16, 20), false);
    }
}
