//! Both clocks at one moment.

use sandtrace_sys::clock;
use sandtrace_wire::Moment;

/// Read together, they turn a time on one into a time on the other.
#[derive(Clone, Copy)]
pub(super) struct Clocks {
    boot_us: u64,
    wall_ns: u64,
}

impl Clocks {
    pub(super) fn read() -> Self {
        Self {
            boot_us: clock::boot_us(),
            wall_ns: clock::wall_ns(),
        }
    }

    /// When they were read, in microseconds of `CLOCK_BOOTTIME`.
    pub(super) const fn read_us(self) -> u64 {
        self.boot_us
    }

    /// Something that happened at this wall time, a moment ago.
    pub(super) fn at_wall(self, wall_ns: u64) -> Moment {
        let ago_us = self.wall_ns.saturating_sub(wall_ns) / 1000;
        Moment {
            mono_us: self.boot_us.saturating_sub(ago_us),
            wall_ns,
        }
    }

    /// Something that happened this long after boot, a moment ago.
    pub(super) fn at_boot(self, boot_ns: u64) -> Moment {
        let ago_ns = (self.boot_us.saturating_mul(1000)).saturating_sub(boot_ns);
        Moment {
            mono_us: boot_ns / 1000,
            wall_ns: self.wall_ns.saturating_sub(ago_ns),
        }
    }
}

pub(super) fn now() -> Moment {
    Moment {
        mono_us: clock::boot_us(),
        wall_ns: clock::wall_ns(),
    }
}
