//! Exact bytes beside a readable form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are not UTF-8, written as standard base64 with padding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bytes64(pub Vec<u8>);

impl Bytes64 {
    /// Splits bytes of Linux (a path, a name) into the readable text and,
    /// where that text lost something, the exact bytes.
    #[must_use]
    pub fn readable_and_exact(bytes: &[u8]) -> (String, Option<Self>) {
        match std::str::from_utf8(bytes) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => {
                let lossy = String::from_utf8_lossy(bytes).into_owned();
                (lossy, Some(Self(bytes.to_vec())))
            }
        }
    }
}

impl Serialize for Bytes64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lossy_text_carries_its_bytes() {
        assert_eq!(
            Bytes64::readable_and_exact("/tmp/é".as_bytes()),
            ("/tmp/é".to_owned(), None)
        );
        let (text, exact) = Bytes64::readable_and_exact(b"/tmp/\xff");
        assert_eq!(text, "/tmp/\u{fffd}");
        assert_eq!(exact, Some(Bytes64(b"/tmp/\xff".to_vec())));
    }
}
