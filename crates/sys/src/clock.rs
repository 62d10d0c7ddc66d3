//! The two clocks of a trail.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since the Unix epoch (`CLOCK_REALTIME`); 0 before 1970.
#[must_use]
pub fn wall_ns() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// Microseconds since boot, suspend included (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boot_us() -> u64 {
    nanos(clock_gettime(ClockId::Boottime)) / 1000
}

/// How far `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`, in nanoseconds: the
/// time for which the machine slept since boot.
#[must_use]
pub fn boot_ahead_ns() -> u64 {
    let monotonic = nanos(clock_gettime(ClockId::Monotonic));
    let boot = nanos(clock_gettime(ClockId::Boottime));
    // What is below a millisecond passed between the two readings.
    let ahead = boot.saturating_sub(monotonic);
    if ahead < 1_000_000 { 0 } else { ahead }
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance() {
        let before = (wall_ns(), boot_us());
        std::thread::sleep(std::time::Duration::from_millis(2));
        let after = (wall_ns(), boot_us());
        assert!(after.0 - before.0 >= 2_000_000);
        assert!(after.1 - before.1 >= 2_000);
    }
}
