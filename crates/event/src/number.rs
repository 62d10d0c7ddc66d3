//! Integers that every JSON reader understands the same way.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The largest integer that a double holds exactly, 2^53 − 1 (RFC 8785 §3.2.2.3).
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A count of bytes, packets, records or microseconds.
///
/// Written as a JSON integer up to [`MAX_SAFE_INTEGER`] and as a decimal
/// string above it, so that no reader rounds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Count {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 <= MAX_SAFE_INTEGER {
            serializer.serialize_u64(self.0)
        } else {
            serializer.collect_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a non-negative integer, or a larger one as a decimal string")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Count, E> {
        Ok(Count(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Count, E> {
        value
            .parse()
            .map(Count)
            .map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: u64, json: &str) {
        let written = serde_json::to_string(&Count(value)).unwrap();
        assert_eq!(written, json);
        assert_eq!(serde_json::from_str::<Count>(json).unwrap(), Count(value));
    }

    #[test]
    fn large_counts_become_strings() {
        check(0, "0");
        check(MAX_SAFE_INTEGER, "9007199254740991");
        check(MAX_SAFE_INTEGER + 1, "\"9007199254740992\"");
        check(u64::MAX, "\"18446744073709551615\"");
    }

    #[test]
    fn negatives_and_words_are_refused() {
        for json in ["-1", "1.5", "\"many\"", "null"] {
            assert!(serde_json::from_str::<Count>(json).is_err(), "{json}");
        }
    }
}
