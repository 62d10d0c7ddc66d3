//! What a server's certificate says, which TLS up to 1.2 sends in the clear
//! (RFC 5246 section 7.4.2, RFC 5280).
//!
//! Nothing is verified: this is what whoever answers says of itself.

use super::der::{OBJECT_ID, SEQUENCE, any, common_name, distinguished_name, element, time};
use crate::reader::Reader;
use crate::text;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// What the first certificate of a server says, unverified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Who issued it: `CN=R11, O=Let's Encrypt, C=US`.
    pub issuer: String,
    /// Whose it is.
    pub subject: String,
    /// From when on it is valid, by RFC 3339; absent where that is malformed.
    pub not_before: Option<String>,
    /// Until when.
    pub not_after: Option<String>,
    /// Serial number in hexadecimal digits, at most 20 bytes of it.
    pub serial: String,
    /// SHA-256 of its DER form.
    pub sha256: [u8; 32],
    /// Its alternative names or, where it has none, its common name: those that
    /// cover the name that the client asked for, or the first ones.
    pub names: Vec<String>,
    /// How many more there are.
    pub names_left_out: u64,
    /// Whether a name covers the one that the client asked for; absent where it
    /// asked for none.
    pub covers: Option<bool>,
}

const HANDSHAKE: u8 = 22;
const CERTIFICATE: u8 = 11;
/// Names that are kept; a certificate of a content network has hundreds.
const MAX_NAMES: usize = 8;
/// Bytes of a serial number (RFC 5280 section 4.1.2.2).
const MAX_SERIAL: usize = 20;

const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// The first certificate of a server's stream, which the client asked for
/// `asked`. `None` while it is not there yet.
pub(crate) fn certificate(stream: &[u8], asked: Option<&str>) -> Option<CertificateFacts> {
    let messages = handshake(stream);
    let mut reader = Reader::new(&messages);
    loop {
        let kind = reader.u8()?;
        let len = usize::try_from(reader.u24()?).ok()?;
        let mut body = reader.sub(len)?;
        if kind == CERTIFICATE {
            body.u24()?;
            let len = usize::try_from(body.u24()?).ok()?;
            let der = body.take(len)?;
            let mut facts = CertificateFacts {
                sha256: Sha256::digest(der).into(),
                ..CertificateFacts::default()
            };
            // What is broken says nothing more, but that it was shown stays.
            let _broken = facts.read(der, asked);
            return Some(facts);
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

impl CertificateFacts {
    fn read(&mut self, certificate: &[u8], asked: Option<&str>) -> Option<()> {
        let mut outer = element(&mut Reader::new(certificate), SEQUENCE)?;
        let mut signed = element(&mut outer, SEQUENCE)?;
        let (mut tag, mut body) = any(&mut signed)?;
        if tag == VERSION {
            (tag, body) = any(&mut signed)?;
        }
        if tag == INTEGER {
            self.serial = hex(body.rest());
        }
        let _algorithm = element(&mut signed, SEQUENCE)?;
        self.issuer = distinguished_name(element(&mut signed, SEQUENCE)?);
        let mut validity = element(&mut signed, SEQUENCE)?;
        self.not_before = time(&mut validity);
        self.not_after = time(&mut validity);
        let subject = element(&mut signed, SEQUENCE)?;
        self.subject = distinguished_name(subject);
        let mut names = Names::new(asked);
        while let Some((tag, body)) = any(&mut signed) {
            if tag == EXTENSIONS {
                // What comes before a broken one counts.
                let _broken = alternative_names(body, &mut names);
            }
        }
        if names.count == 0
            && let Some(name) = common_name(subject)
        {
            names.add(name);
        }
        names.into_facts(self);
        Some(())
    }
}

/// The names of a certificate as they are read, of which few are kept.
struct Names<'a> {
    asked: Option<&'a str>,
    first: Vec<String>,
    covering: Vec<String>,
    count: u64,
}

impl<'a> Names<'a> {
    const fn new(asked: Option<&'a str>) -> Self {
        Self {
            asked,
            first: Vec::new(),
            covering: Vec::new(),
            count: 0,
        }
    }

    fn add(&mut self, name: &[u8]) {
        self.count += 1;
        let covers = self.asked.is_some_and(|asked| covers(name, asked));
        let kept = if covers {
            &mut self.covering
        } else {
            &mut self.first
        };
        if kept.len() < MAX_NAMES {
            kept.push(text::host_name(name));
        }
    }

    fn into_facts(self, facts: &mut CertificateFacts) {
        let covered = !self.covering.is_empty();
        facts.covers = self.asked.filter(|_| self.count > 0).map(|_| covered);
        facts.names = if covered { self.covering } else { self.first };
        let kept = u64::try_from(facts.names.len()).unwrap_or(u64::MAX);
        facts.names_left_out = self.count.saturating_sub(kept);
    }
}

fn alternative_names(mut body: Reader<'_>, names: &mut Names<'_>) -> Option<()> {
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
        while let Some((tag, name)) = any(&mut general) {
            if tag == DNS_NAME {
                names.add(name.rest());
            }
        }
        return Some(());
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes.iter().take(MAX_SERIAL) {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    if bytes.len() > MAX_SERIAL {
        text::mark_cut(&mut out);
    }
    out
}

/// Whether a name of a certificate covers a host's: its first label may be `*`.
fn covers(name: &[u8], host: &str) -> bool {
    match name.strip_prefix(b"*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(_, rest)| text::is_host_name(domain, rest)),
        None => text::is_host_name(name, host),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::tls::{message, record};
    use crate::tls::der::SET;
    use proptest::prelude::*;

    fn der(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [&[tag, 0x82, len[0], len[1]], body].concat()
    }

    /// A certificate of TLS for these names.
    pub(crate) fn der_of(common: &str, alternatives: &[&str]) -> Vec<u8> {
        let part = |id: u8, value: &str| {
            let attribute = [der(OBJECT_ID, &[0x55, 4, id]), der(0x0c, value.as_bytes())];
            der(SET, &der(SEQUENCE, &attribute.concat()))
        };
        let issuer = [part(6, "US"), part(10, "A, Inc."), part(3, "R\u{e9}")].concat();
        let subject = der(SEQUENCE, &part(3, common));
        let time = |text: &str| [&[0x17, 13], text.as_bytes()].concat();
        let validity = [time("240102030405Z"), time("340102030405Z")].concat();
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
            der(SEQUENCE, &issuer),
            der(SEQUENCE, &validity),
            subject,
            der(SEQUENCE, &[9; 20]),
            der(EXTENSIONS, &der(SEQUENCE, &der(SEQUENCE, &extension))),
        ]
        .concat();
        der(SEQUENCE, &der(SEQUENCE, &signed))
    }

    /// What a server says first that has it.
    fn stream(certificate: &[u8]) -> Vec<u8> {
        certificate_records(message(2, &[0; 40]), certificate)
    }

    /// The same behind a hello.
    pub(crate) fn certificate_records(hello: Vec<u8>, certificate: &[u8]) -> Vec<u8> {
        let u24 = |len: usize| (len as u32).to_be_bytes()[1..].to_vec();
        let list = [u24(certificate.len()), certificate.to_vec()].concat();
        let body = [u24(list.len()), list].concat();
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
            let stream = stream(&der_of(common, alternatives));
            assert_eq!(certificate(&stream, None).unwrap().names, expected);
            assert_eq!(certificate(&stream[..stream.len() - 1], None), None);
        }
        check("Old.example", &[], &["old.example"]);
        check(
            "x",
            &["a.example", "*.B.example"],
            &["a.example", "*.b.example"],
        );
    }

    #[test]
    fn all_that_it_says_is_read() {
        let der = der_of("a.example", &["b.example"]);
        let facts = certificate(&stream(&der), Some("c.example")).unwrap();
        let expected = CertificateFacts {
            issuer: "C=US, O=A\\044 Inc., CN=R\\195\\169".to_owned(),
            subject: "CN=a.example".to_owned(),
            not_before: Some("2024-01-02T03:04:05Z".to_owned()),
            not_after: Some("2034-01-02T03:04:05Z".to_owned()),
            serial: "010203".to_owned(),
            sha256: Sha256::digest(&der).into(),
            names: vec!["b.example".to_owned()],
            names_left_out: 0,
            covers: Some(false),
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn of_many_names_those_that_count_are_kept() {
        let many: Vec<_> = (0..300).map(|number| format!("{number}.example")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let stream = stream(&der_of("x", &many));
        let facts = certificate(&stream, Some("299.example")).unwrap();
        assert_eq!(facts.names, ["299.example"]);
        assert_eq!((facts.names_left_out, facts.covers), (299, Some(true)));
        let facts = certificate(&stream, Some("300.example")).unwrap();
        assert_eq!((facts.names.len(), facts.names_left_out), (8, 292));
        assert_eq!(facts.covers, Some(false));
    }

    #[test]
    fn a_star_covers_one_label() {
        assert!(covers(b"a.example", "a.example"));
        assert!(covers(b"*.example", "a.example"));
        assert!(!covers(b"*.example", "b.a.example"));
        assert!(!covers(b"*.example", "example"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, at in 0_usize..400, value: u8) {
            let _ = CertificateFacts::default().read(&bytes, Some("a"));
            let mut stream = stream(&der_of("c", &["a.example"]));
            let place = at % stream.len();
            stream[place] = value;
            let _ = certificate(&stream, None);
        }
    }
}
