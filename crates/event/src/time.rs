//! Time as the trail writes it. Nothing here reads a clock.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// Nanoseconds since the Unix epoch, written as RFC 3339 in UTC with nine
/// fractional digits and `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Unix time in milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    fn to_system_time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_nanos(self.to_system_time()).fmt(f)
    }
}

/// A text that is not an RFC 3339 time of this trail's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UTC time of the form 2025-03-25T12:00:00.000000000Z")]
pub struct ParseTimeError;

impl FromStr for WallTime {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let time = humantime::parse_rfc3339(text).map_err(|_| ParseTimeError)?;
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| ParseTimeError)?;
        u64::try_from(since.as_nanos())
            .map(Self)
            .map_err(|_| ParseTimeError)
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One moment on both clocks: the wall clock, which people read and which
/// may be stepped, and `CLOCK_BOOTTIME` in microseconds, which orders the story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Microseconds since boot, suspend included.
    pub mono_us: u64,
    /// The wall clock at that moment.
    pub wall: WallTime,
}

impl Timestamp {
    /// Microseconds from `earlier` to this moment; 0 if it is not earlier.
    #[must_use]
    pub fn micros_since(self, earlier: Self) -> u64 {
        self.mono_us.saturating_sub(earlier.mono_us)
    }

    /// This moment, `micros` later on both clocks.
    #[must_use]
    pub fn plus_micros(self, micros: u64) -> Self {
        Self {
            mono_us: self.mono_us.saturating_add(micros),
            wall: WallTime(self.wall.0.saturating_add(micros.saturating_mul(1000))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_has_nine_digits_and_round_trips() {
        let time = WallTime(1_742_904_000_000_000_007);
        assert_eq!(time.to_string(), "2025-03-25T12:00:00.000000007Z");
        assert_eq!(time.to_string().parse(), Ok(time));
        assert!("2025-03-25".parse::<WallTime>().is_err());
    }
}
