//! What a collector reports, kept.

use sandtrace_capture::Observer;
use sandtrace_event::{Limits, Observation, Payload, SyscallActivity, Timestamp, WallTime};
use sandtrace_sys::clock;

/// System call records; anything else fails the test.
#[derive(Default)]
pub(crate) struct Records(pub(crate) Vec<SyscallActivity>);

impl Observer for Records {
    fn observe(&mut self, observation: Observation) -> Limits {
        match observation.payload {
            Payload::SyscallActivity(activity) => self.0.push(activity),
            other => panic!("{other:?}"),
        }
        Limits::default()
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp {
        mono_us: clock::boot_us(),
        wall: WallTime(clock::wall_ns()),
    }
}
