//! Time as the trail writes it. Nothing here reads a clock.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

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

    /// The written form as bytes, without an allocation; every record has
    /// several of them.
    #[must_use]
    pub fn to_text(self) -> [u8; TEXT_LEN] {
        let (seconds, nanos) = (self.0 / NANOS, self.0 % NANOS);
        let (year, month, day) = date(seconds / DAY);
        let second = seconds % DAY;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let fields = [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, second / 3600),
            (14, 2, second / 60 % 60),
            (17, 2, second % 60),
            (20, 9, nanos),
        ];
        for (at, width, value) in fields {
            let mut rest = value;
            for digit in text.iter_mut().skip(at).take(width).rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
        }
        text
    }
}

/// Length of the written form in bytes.
const TEXT_LEN: usize = 30;
const NANOS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
///
/// Years are counted from March on, so that the leap day is the last of one;
/// 400 of them always have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days.min(day_of_era)) / 365;
    let begin = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    let day_of_year = day_of_era - begin.min(day_of_era);
    // March to July and August to December have 31, 30, 31, 30, 31 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).unwrap_or_default())
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
        serializer.serialize_str(std::str::from_utf8(&self.to_text()).unwrap_or_default())
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

    /// Every day that 64 bits of nanoseconds reach, at another moment of each.
    #[test]
    fn every_day_is_written_as_humantime_does() {
        for day in 0..213_000_u64 {
            let second = day * 86_400 + day * 7919 % 86_400;
            let nanos = second * 1_000_000_000 + day * 104_729 % 1_000_000_000;
            let expected = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanos);
            let expected = humantime::format_rfc3339_nanos(expected).to_string();
            assert_eq!(WallTime(nanos).to_string(), expected);
        }
        let last = WallTime(u64::MAX).to_string();
        assert_eq!(last, "2554-07-21T23:34:33.709551615Z");
    }
}
