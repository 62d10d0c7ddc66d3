//! The rate of the processor's time stamp counter.

use std::time::{Duration, Instant};

/// How long the counter is compared with the clock: the clock is read in well under a
/// microsecond, so that the result is right to about 0.01 %.
const WINDOW: Duration = Duration::from_millis(10);

/// Measures the counter's rate in kHz against the monotonic clock, which takes 10 ms; nothing
/// where the processor has no such counter.
#[must_use]
pub fn khz() -> Option<u64> {
    let (start, first) = sample()?;
    std::thread::sleep(WINDOW);
    let (end, second) = sample()?;
    let ticks = u128::from(second.checked_sub(first)?);
    u64::try_from(ticks * 1_000_000 / (end - start).as_nanos().max(1)).ok()
}

/// Both clocks at about the same moment: of several tries the one that was least interrupted.
fn sample() -> Option<(Instant, u64)> {
    const TRIES: usize = 16;
    let attempt = || {
        let (before, ticks) = (Instant::now(), now()?);
        Some((before.elapsed(), before, ticks))
    };
    let tries = std::iter::repeat_with(attempt).take(TRIES).flatten();
    let (_, at, ticks) = tries.min_by_key(|(width, ..)| *width)?;
    Some((at, ticks))
}

#[cfg(target_arch = "x86_64")]
fn now() -> Option<u64> {
    // SAFETY: RDTSC only reads a counter into registers. Every x86-64 processor has it, and
    // Linux leaves it open to user space unless a process asks otherwise (PR_SET_TSC), in which
    // case it ends in a signal, not in undefined behaviour.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn now() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #[test]
    fn is_a_plausible_rate() {
        let khz = super::khz().unwrap();
        assert!((100_000..10_000_000).contains(&khz), "{khz}");
    }
}
