//! Names in a server's certificate, which TLS up to 1.2 sends in the clear
//! (RFC 5246 section 7.4.2, RFC 5280).
//!
//! Nothing is verified: a name here is what whoever answers says of itself.

use crate::reader::Reader;
use crate::text;

const HANDSHAKE: u8 = 22;
const CERTIFICATE: u8 = 11;
/// Names that are kept; a certificate of a content network has hundreds.
const MAX_NAMES: usize = 100;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
/// 2.5.29.17 and 2.5.4.3.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The names in the first certificate of a server's stream: those of the
/// alternative names or, where it has none, the common name. `None` while it
/// is not there yet.
pub(crate) fn certificate_names(stream: &[u8]) -> Option<Vec<String>> {
    let messages = handshake(stream);
    let mut reader = Reader::new(&messages);
    loop {
        let kind = reader.u8()?;
        let len = usize::try_from(reader.u24()?).ok()?;
        let mut body = reader.sub(len)?;
        if kind == CERTIFICATE {
            body.u24()?;
            let len = usize::try_from(body.u24()?).ok()?;
            return Some(names(body.take(len)?).unwrap_or_default());
        }
    }
}

/// The bodies of the handshake records at the start of a stream.
fn handshake(stream: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(stream);
    let mut messages = Vec::new();
    while let (Some(HANDSHAKE), Some(_), Some(len)) = (reader.u8(), reader.u16(), reader.u16()) {
        messages.extend_from_slice(reader.up_to(usize::from(len)));
    }
    messages
}

fn names(certificate: &[u8]) -> Option<Vec<String>> {
    let mut outer = element(&mut Reader::new(certificate), SEQUENCE)?;
    let mut signed = element(&mut outer, SEQUENCE)?;
    let (mut tag, _) = any(&mut signed)?;
    if tag == VERSION {
        (tag, _) = any(&mut signed)?;
    }
    // That was the serial number; algorithm, issuer and validity follow.
    let _serial = tag;
    for _ in 0..3 {
        element(&mut signed, SEQUENCE)?;
    }
    let subject = element(&mut signed, SEQUENCE)?;
    while let Some((tag, body)) = any(&mut signed) {
        if tag == EXTENSIONS {
            let names = alternative_names(body).unwrap_or_default();
            if !names.is_empty() {
                return Some(names);
            }
        }
    }
    Some(common_name(subject).into_iter().collect())
}

fn alternative_names(mut body: Reader<'_>) -> Option<Vec<String>> {
    let mut extensions = element(&mut body, SEQUENCE)?;
    while !extensions.is_empty() {
        let mut extension = element(&mut extensions, SEQUENCE)?;
        let id = element(&mut extension, OBJECT_ID)?;
        let (mut tag, mut value) = any(&mut extension)?;
        if tag == BOOLEAN {
            (tag, value) = any(&mut extension)?;
        }
        if id.rest() != SUBJECT_ALT_NAME || tag != OCTET_STRING {
            continue;
        }
        let mut general = element(&mut value, SEQUENCE)?;
        let mut names = Vec::new();
        while names.len() < MAX_NAMES
            && let Some((tag, name)) = any(&mut general)
        {
            if tag == DNS_NAME {
                names.push(text::host_name(name.rest()));
            }
        }
        return Some(names);
    }
    None
}

fn common_name(mut subject: Reader<'_>) -> Option<String> {
    while !subject.is_empty() {
        let mut set = element(&mut subject, SET)?;
        let mut attribute = element(&mut set, SEQUENCE)?;
        let id = element(&mut attribute, OBJECT_ID)?;
        let (_, value) = any(&mut attribute)?;
        if id.rest() == COMMON_NAME {
            return Some(text::host_name(value.rest()));
        }
    }
    None
}

/// The next element, which must have this tag.
fn element<'a>(reader: &mut Reader<'a>, expected: u8) -> Option<Reader<'a>> {
    let (tag, body) = any(reader)?;
    (tag == expected).then_some(body)
}

/// The next element of DER (X.690): tag of one byte, length of up to four.
fn any<'a>(reader: &mut Reader<'a>) -> Option<(u8, Reader<'a>)> {
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

/// Whether a name of a certificate covers a host's: its first label may be `*`.
pub(crate) fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tls::{message, record};
    use proptest::prelude::*;

    fn der(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [&[tag, 0x82, len[0], len[1]], body].concat()
    }

    pub(crate) fn certificate(common: &str, alternatives: &[&str]) -> Vec<u8> {
        let attribute = [der(OBJECT_ID, &COMMON_NAME), der(0x0c, common.as_bytes())].concat();
        let subject = der(SEQUENCE, &der(SET, &der(SEQUENCE, &attribute)));
        let names: Vec<u8> = alternatives
            .iter()
            .flat_map(|name| der(DNS_NAME, name.as_bytes()))
            .collect();
        let extension = [
            der(OBJECT_ID, &SUBJECT_ALT_NAME),
            der(BOOLEAN, &[0xff]),
            der(OCTET_STRING, &der(SEQUENCE, &names)),
        ]
        .concat();
        let signed = [
            der(VERSION, &der(2, &[2])),
            der(2, &[1, 2, 3]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[]),
            subject,
            der(SEQUENCE, &[9; 20]),
            der(EXTENSIONS, &der(SEQUENCE, &der(SEQUENCE, &extension))),
        ]
        .concat();
        der(SEQUENCE, &der(SEQUENCE, &signed))
    }

    fn stream(certificate: &[u8]) -> Vec<u8> {
        let u24 = |len: usize| (len as u32).to_be_bytes()[1..].to_vec();
        let list = [u24(certificate.len()), certificate.to_vec()].concat();
        let body = [u24(list.len()), list].concat();
        let hello = message(2, &[0; 40]);
        let message = [hello, message(CERTIFICATE, &body)].concat();
        message
            .chunks(100)
            .flat_map(|part| record(HANDSHAKE, part))
            .collect()
    }

    #[test]
    fn names_are_read_over_records() {
        #[track_caller]
        fn check(common: &str, alternatives: &[&str], expected: &[&str]) {
            let stream = stream(&certificate(common, alternatives));
            assert_eq!(certificate_names(&stream).unwrap(), expected);
            assert_eq!(certificate_names(&stream[..stream.len() - 1]), None);
        }
        check("Old.example", &[], &["old.example"]);
        check(
            "x",
            &["a.example", "*.B.example"],
            &["a.example", "*.b.example"],
        );
    }

    #[test]
    fn a_star_covers_one_label() {
        assert!(covers("a.example", "a.example"));
        assert!(covers("*.example", "a.example"));
        assert!(!covers("*.example", "b.a.example"));
        assert!(!covers("*.example", "example"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, at in 0_usize..400, value: u8) {
            let _ = names(&bytes);
            let mut stream = stream(&certificate("c", &["a.example"]));
            let place = at % stream.len();
            stream[place] = value;
            let _ = certificate_names(&stream);
        }
    }
}
