//! The moment that it is, and control records that bear it.

use sandtrace_event::{EvidenceTier, Observation, Payload, Timestamp, WallTime};
use sandtrace_sys::clock;

/// Now, by both clocks.
pub(crate) fn now() -> Timestamp {
    Timestamp {
        mono_us: clock::boot_us(),
        wall: WallTime(clock::wall_ns()),
    }
}

/// What Sandtrace says of itself.
pub(crate) fn control(at: Timestamp, payload: Payload) -> Observation {
    Observation {
        at,
        payload,
        tier: EvidenceTier::Hypervisor,
    }
}
