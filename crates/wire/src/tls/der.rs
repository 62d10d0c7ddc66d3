//! Elements of DER (X.690), and what X.509 makes of some.

use crate::reader::Reader;
use crate::text;
use std::fmt::Write as _;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// 2.5.4, under which X.520 numbers what names are made of.
const ATTRIBUTES: [u8; 2] = [0x55, 0x04];
const COMMON_NAME: u8 = 3;
/// Parts of a name that are shown, and bytes of each; RFC 5280 allows 64 characters.
const MAX_PARTS: usize = 8;
const MAX_PART: usize = 64;

/// The next element, which must have this tag.
pub(super) fn element<'a>(reader: &mut Reader<'a>, expected: u8) -> Option<Reader<'a>> {
    let (tag, body) = any(reader)?;
    (tag == expected).then_some(body)
}

/// The next element of DER (X.690): tag of one byte, length of up to four.
pub(super) fn any<'a>(reader: &mut Reader<'a>) -> Option<(u8, Reader<'a>)> {
    let tag = reader.u8()?;
    let first = reader.u8()?;
    let len = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let mut len = 0;
            for _ in 0..first & 0x0f {
                len = len << 8 | usize::from(reader.u8()?);
            }
            len
        }
        _ => return None,
    };
    Some((tag, reader.sub(len)?))
}

/// A distinguished name as people write it, `CN=a.example, O=A\\044 Inc., C=US`, in
/// its own order.
pub(super) fn distinguished_name(name: Reader<'_>) -> String {
    let mut out = String::new();
    let mut parts = parts(name);
    for (id, value) in parts.by_ref().take(MAX_PARTS) {
        if !out.is_empty() {
            out.push_str(", ");
        }
        match *id {
            [0x55, 0x04, 3] => out.push_str("CN="),
            [0x55, 0x04, 6] => out.push_str("C="),
            [0x55, 0x04, 7] => out.push_str("L="),
            [0x55, 0x04, 8] => out.push_str("ST="),
            [0x55, 0x04, 10] => out.push_str("O="),
            [0x55, 0x04, 11] => out.push_str("OU="),
            // Another one, by its identifier's bytes.
            ref other => {
                for byte in other.iter().take(MAX_PART) {
                    // Writing to a string does not fail.
                    let _ = write!(out, "{byte:02x}");
                }
                out.push('=');
            }
        }
        out.push_str(&text::phrase(value, MAX_PART));
    }
    if parts.next().is_some() {
        text::mark_cut(&mut out);
    }
    out
}

/// The last common name in a name.
pub(super) fn common_name(name: Reader<'_>) -> Option<&[u8]> {
    let [first, second] = ATTRIBUTES;
    let of = parts(name).filter(|(id, _)| **id == [first, second, COMMON_NAME]);
    of.map(|(_, value)| value).last()
}

/// Identifiers and values of a name's parts.
fn parts<'a>(name: Reader<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let mut sets = name;
    let mut set = Reader::new(&[]);
    std::iter::from_fn(move || {
        while set.is_empty() {
            set = element(&mut sets, SET)?;
        }
        let mut attribute = element(&mut set, SEQUENCE)?;
        let id = element(&mut attribute, OBJECT_ID)?;
        let (_, value) = any(&mut attribute)?;
        Some((id.rest(), value.rest()))
    })
}

/// A time of a certificate (RFC 5280 section 4.1.2.5) as RFC 3339 has it.
pub(super) fn time(reader: &mut Reader<'_>) -> Option<String> {
    let (tag, body) = any(reader)?;
    let text = std::str::from_utf8(body.rest()).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (century, rest) = match tag {
        // Two digits of the year: from 50 on of the last century.
        UTC_TIME if text >= "5" => ("19", text),
        UTC_TIME => ("20", text),
        GENERALIZED_TIME => text.split_at_checked(2)?,
        _ => return None,
    };
    let part = |at: usize| rest.get(at * 2..at * 2 + 2);
    let [year, month, day] = [part(0)?, part(1)?, part(2)?];
    let [hour, minute, second] = [part(3)?, part(4)?, part(5)?];
    (rest.len() == 12).then(|| format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        #[track_caller]
        fn check(tag: u8, text: &str, expected: Option<&str>) {
            let bytes = [&[tag, text.len() as u8], text.as_bytes()].concat();
            assert_eq!(time(&mut Reader::new(&bytes)).as_deref(), expected);
        }
        check(UTC_TIME, "240131235959Z", Some("2024-01-31T23:59:59Z"));
        check(UTC_TIME, "990131235959Z", Some("1999-01-31T23:59:59Z"));
        check(
            GENERALIZED_TIME,
            "20510131235959Z",
            Some("2051-01-31T23:59:59Z"),
        );
        check(GENERALIZED_TIME, "240131235959Z", None);
        check(UTC_TIME, "2401312359Z", None);
        check(UTC_TIME, "24013123595\u{1b}Z", None);
        check(4, "240131235959Z", None);
    }
}
