//! What had crossed an interface when its capture began.

use super::collector::{NetworkCollector, NetworkTarget};
use crate::Observer;
use sandtrace_event::{CaptureGap, Count, GapCause, GapUnit, Layer, Observation, Passed};
use sandtrace_sys::netdev::Counters;

/// `counters` are of the moment before the capture began. `own`: nobody else held
/// the interface before. `None`: nothing had passed.
pub(super) fn passed(target: &NetworkTarget, own: bool, counters: Counters) -> Option<Passed> {
    if counters.rx_packets == 0 && counters.tx_packets == 0 {
        return None;
    }
    Some(Passed {
        bytes_received: Count(counters.tx_bytes),
        bytes_sent: Count(counters.rx_bytes),
        interface: target.interface.clone(),
        own,
        packets_received: Count(counters.tx_packets),
        packets_sent: Count(counters.rx_packets),
    })
}

impl NetworkCollector {
    /// What had crossed the interface before, if anything had.
    #[must_use]
    pub fn passed(&self) -> Option<&Passed> {
        self.passed.as_ref()
    }

    /// Reports it as a gap where it was the sandbox's own.
    pub fn report_passed(&self, observer: &mut dyn Observer) {
        let Some(passed) = self.passed().filter(|passed| passed.own) else {
            return;
        };
        let (sent, received) = (passed.packets_sent, passed.packets_received);
        let detail = format!(
            "{sent} frames had been sent and {received} received when the capture began; nobody \
             else held the interface before"
        );
        let at = self.began;
        let gap = CaptureGap {
            cause: GapCause::BeforeCapture,
            count: Count(sent.0.saturating_add(received.0)),
            detail,
            first_at: at.wall,
            last_at: at.wall,
            layer: Layer::Network,
            source: passed.interface.clone(),
            unit: GapUnit::Packets,
        };
        observer.observe(Observation {
            at,
            payload: gap.into(),
            tier: self.tier(),
        });
    }
}
