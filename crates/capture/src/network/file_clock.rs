//! The clock of a capture file.

use sandtrace_wire::Moment;

/// Moments of a file: wall time as it stands there, monotonic time from its first frame.
#[derive(Debug, Default)]
pub struct FileClock {
    now: Moment,
    /// What monotonic time is counted from.
    base: Option<Moment>,
    frames: u64,
    steps: u64,
    first: Option<Step>,
}

/// That the clock was set between two frames.
#[derive(Clone, Copy, Debug)]
struct Step {
    frame: u64,
    from_ns: u64,
    to_ns: u64,
}

/// Frames that were taken on several processors go back by less.
const BACK_NS: u64 = 1_000_000_000;
/// A longer silence is none. Every flow is idle long before.
const AHEAD_NS: u64 = 24 * 3600 * 1_000_000_000;

impl FileClock {
    /// The moment of the next frame. Monotonic time stands still where the file's goes
    /// back a little. From where it goes back further it goes on with the file's from
    /// there; of a leap ahead it takes a day, so that one wrong frame cannot use it up.
    pub fn at(&mut self, wall_ns: u64) -> Moment {
        self.frames += 1;
        let base = *self.base.get_or_insert(Moment {
            mono_us: 0,
            wall_ns,
        });
        let latest_ns = base
            .wall_ns
            .saturating_add((self.now.mono_us - base.mono_us).saturating_mul(1000));
        let base = if self.frames == 1 {
            base
        } else if latest_ns.saturating_sub(wall_ns) > BACK_NS {
            self.step(latest_ns, wall_ns, 0)
        } else if wall_ns.saturating_sub(latest_ns) > AHEAD_NS {
            self.step(latest_ns, wall_ns, AHEAD_NS / 1000)
        } else {
            base
        };
        let since_us = (wall_ns / 1000).saturating_sub(base.wall_ns / 1000);
        self.now = Moment {
            mono_us: base.mono_us.saturating_add(since_us).max(self.now.mono_us),
            wall_ns,
        };
        self.now
    }

    /// Counts a step, from which monotonic time goes on by so much.
    fn step(&mut self, from_ns: u64, to_ns: u64, by_us: u64) -> Moment {
        self.steps += 1;
        let frame = self.frames;
        self.first.get_or_insert(Step {
            frame,
            from_ns,
            to_ns,
        });
        let base = Moment {
            mono_us: self.now.mono_us.saturating_add(by_us),
            wall_ns: to_ns,
        };
        *self.base.insert(base)
    }

    /// That of the latest frame.
    pub(super) const fn now(&self) -> Moment {
        self.now
    }

    /// How often the clock was set, and how the first time.
    pub(super) fn steps(&self) -> Option<(u64, String)> {
        let step = self.first?;
        let (way, by_ns) = if step.to_ns < step.from_ns {
            ("back", step.from_ns - step.to_ns)
        } else {
            ("ahead", step.to_ns - step.from_ns)
        };
        let by_s = by_ns / 1_000_000_000;
        let frame = step.frame;
        let detail = format!("the file's time steps, first {way} by {by_s} s at frame {frame}");
        Some((self.steps, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[track_caller]
    fn check(seconds: &[u64], mono_s: &[u64], steps: u64) -> Option<String> {
        let mut clock = FileClock::default();
        let moments = seconds
            .iter()
            .map(|at| clock.at(at * S).mono_us / 1_000_000);
        assert_eq!(moments.collect::<Vec<_>>(), mono_s);
        let told = clock.steps();
        assert_eq!(told.as_ref().map_or(0, |(steps, _)| *steps), steps);
        told.map(|(_, detail)| detail)
    }

    #[test]
    fn time_goes_on_after_a_step() {
        const DAY: u64 = 86_400;
        check(&[100, 101, 100, 101, 103], &[0, 1, 1, 1, 3], 0);
        let detail = check(&[5000, 5001, 1401, 1402, 1500], &[0, 1, 1, 2, 100], 1);
        let back = "the file's time steps, first back by 3600 s at frame 3";
        assert_eq!(detail.as_deref(), Some(back));
        check(&[0, DAY], &[0, DAY], 0);
        // One frame of another year, and back.
        let far = [100, 1_000_000_000, 102, 202];
        check(&far, &[0, DAY, DAY, DAY + 100], 2);
        let ends = [0, u64::MAX / S, 0, u64::MAX / S];
        check(&ends, &[0, DAY, DAY, 2 * DAY], 3);
    }
}
