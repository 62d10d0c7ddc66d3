//! Event ids that sort by time.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `evt_` and 26 characters of Crockford base32: 48 bits of Unix
/// milliseconds, 48 bits of the trail's nonce, 32 bits of the sequence
/// number. Unique within a trail by `seq`, across trails by the nonce, and
/// ordered by time as text (the layout of a ULID).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(String);

impl EventId {
    /// `wall_ms`: Unix time in milliseconds; `nonce`: the trail's, of which
    /// the low 48 bits count; `seq`: the record's sequence number.
    #[must_use]
    pub fn new(wall_ms: u64, nonce: u64, seq: u64) -> Self {
        const PREFIX: &str = "evt_";
        const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        const LOW_48: u64 = (1 << 48) - 1;
        let bits = u128::from(wall_ms & LOW_48) << 80
            | u128::from(nonce & LOW_48) << 32
            | u128::from(seq & 0xffff_ffff);
        let digits = (0..26).rev().map(|place| {
            let digit = (bits >> (5 * place)) & 31;
            let digit = usize::try_from(digit)
                .ok()
                .and_then(|digit| ALPHABET.get(digit));
            char::from(*digit.unwrap_or(&b'0'))
        });
        let mut text = String::with_capacity(PREFIX.len() + 26);
        text.push_str(PREFIX);
        text.extend(digits);
        Self(text)
    }

    /// The written form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_then_sequence() {
        let id = |ms, seq| EventId::new(ms, 0xfeed_beef, seq).0;
        let in_order = [id(1, 9), id(2, 1), id(2, 2), id(1 << 40, 0)];
        assert!(in_order.is_sorted());
        assert_eq!(
            EventId::new(0, 0, 0).as_str(),
            "evt_00000000000000000000000000"
        );
        assert_eq!(id(1, 9).len(), 30);
    }
}
