//! DNS messages (RFC 1035 section 4), as far as names and addresses go.

use super::svcb::Service;
use crate::reader::Reader;
use crate::text;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A message with exactly one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) is_response: bool,
    pub(crate) rcode: u8,
    pub(crate) question: Question,
    /// Records of the answer section, up to the first that is not whole.
    pub(crate) answers: Vec<Record>,
    /// Records that the header states beyond those.
    pub(crate) left_out: u16,
    /// It asks for another operation than a lookup, or has parts that a question
    /// does not have. An answer is none of that.
    pub(crate) is_more_than_a_question: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// One record of the answer section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) data: Rdata,
}

/// A record's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rdata {
    Address(IpAddr),
    Alias(String),
    /// SVCB or HTTPS.
    Service(Service),
    /// Of another type that is worth showing.
    Text(String),
    /// Of another type, or broken: how many bytes.
    Other {
        kind: u16,
        length: usize,
    },
}

const HEADER: usize = 12;
/// Records that are read of one answer.
const MAX_RECORDS: u16 = 256;
/// Longest name on the wire (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// Bytes shown of a TXT record.
const MAX_TEXT: usize = 64;
const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;
const TYPE_SRV: u16 = 33;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
const TYPE_AAAA: u16 = 28;
const TYPE_SIG: u16 = 24;
const TYPE_OPT: u16 = 41;
const TYPE_TKEY: u16 = 249;
const TYPE_TSIG: u16 = 250;
const TYPE_IXFR: u16 = 251;
/// The bits of the header that say which operation is asked for; 0 is a lookup.
const OPCODE: u16 = 0x7800;
/// Records after a question, and bytes of their data: options such as cookies and
/// padding, signatures, and what keys for those are agreed on with.
const MAX_TAIL: u16 = 4;
const MAX_OPTIONS: usize = 512;
const MAX_SIGNATURE: usize = 4096;

impl Message {
    /// Reads a message. Its tail may be missing, its question may not.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let id = reader.u16()?;
        let flags = reader.u16()?;
        let [questions, answers, authorities, additional] =
            [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        if questions != 1 {
            return None;
        }
        let question = Question {
            name: name(bytes, &mut reader)?,
            kind: reader.u16()?,
            class: reader.u16()?,
        };
        let mut message = Self {
            id,
            is_response: flags & 0x8000 != 0,
            rcode: u8::try_from(flags & 0x000f).ok()?,
            question,
            answers: Vec::new(),
            left_out: 0,
            is_more_than_a_question: false,
        };
        if message.is_response {
            message.left_out = answers;
            for _ in 0..answers.min(MAX_RECORDS) {
                match record(bytes, &mut reader) {
                    Some(record) => message.answers.push(record),
                    None => break,
                }
                message.left_out -= 1;
            }
        } else {
            // An incremental transfer says from which version on (RFC 1995).
            let from = u16::from(message.question.kind == TYPE_IXFR);
            message.is_more_than_a_question = flags & OPCODE != 0
                || answers != 0
                || authorities > from
                || !is_plain_tail(bytes, reader, authorities, additional);
        }
        Some(message)
    }

    /// Whether bytes that were sent to any port are a question and nothing else.
    pub(crate) fn is_plain_question(bytes: &[u8]) -> bool {
        let mut reader = Reader::new(bytes);
        // Perhaps recursion desired or checking disabled; one question, perhaps EDNS.
        let header = (
            reader.u16(),
            reader.u16().map(|flags| flags & !0x0130),
            reader.u16(),
            reader.u16(),
            reader.u16(),
            reader.u16(),
        );
        let (Some(_), Some(0), Some(1), Some(0), Some(0), Some(additional @ 0..=1)) = header else {
            return false;
        };
        let asked = name(bytes, &mut reader);
        let (kind, class) = (reader.u16(), reader.u16());
        asked.is_some_and(|name| name.contains('.'))
            && matches!(kind, Some(1..=260))
            && class == Some(CLASS_IN)
            && reader.is_empty() == (additional == 0)
    }

    /// Addresses that the answers give to the question's name, directly or
    /// over the names that stand for it.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let chain = self.chain();
        self.answers.iter().flat_map(move |record| {
            let owned = chain.contains(&record.name.as_str());
            let (address, hints) = match &record.data {
                Rdata::Address(address) if owned => (Some(*address), &[][..]),
                Rdata::Service(service) if owned => (None, service.hints.as_slice()),
                _ => (None, &[][..]),
            };
            address.into_iter().chain(hints.iter().copied())
        })
    }

    /// Names that stand for the question's and to which the answers give no
    /// address: whoever asks goes on and asks for those.
    pub(crate) fn dangling(&self) -> impl Iterator<Item = &str> {
        let chain = self.chain().into_iter().skip(1);
        chain.filter(|name| {
            let mut records = self.answers.iter();
            !records.any(|record| record.name == *name && matches!(record.data, Rdata::Address(_)))
        })
    }

    /// The question's name, and those that the answers say stand for it.
    fn chain(&self) -> Vec<&str> {
        let mut chain = vec![self.question.name.as_str()];
        // Servers send a chain in order, but need not: each pass finds a link.
        for _ in 0..self.answers.len().min(MAX_CHAIN) {
            let next = self.answers.iter().find_map(|record| {
                let target = record.data.stands_for()?;
                let leads_on = chain.contains(&record.name.as_str()) && !chain.contains(&target);
                leads_on.then_some(target)
            });
            match next {
                Some(target) => chain.push(target),
                None => break,
            }
        }
        chain
    }

    /// All answers as text, in their order: addresses and names as they are,
    /// other types as a zone file has them, what is not read as RFC 3597 has it.
    pub(crate) fn answer_texts(&self) -> Vec<String> {
        self.answers
            .iter()
            .map(|record| match &record.data {
                Rdata::Address(address) => address.to_string(),
                Rdata::Alias(name) | Rdata::Text(name) => name.clone(),
                Rdata::Service(service) => service.text(),
                Rdata::Other { kind, length } => format!("{} \\# {length}", type_name(*kind)),
            })
            .collect()
    }
}

impl Rdata {
    /// The name that stands for the record's owner. In alias mode SVCB and
    /// HTTPS are what CNAME is; in service mode the service is at their target
    /// (RFC 9460 sections 2.4.2 and 2.5).
    fn stands_for(&self) -> Option<&str> {
        match self {
            Self::Alias(target) => Some(target),
            Self::Service(service) if service.target != "." => Some(&service.target),
            _ => None,
        }
    }
}

const MAX_CHAIN: usize = 16;

/// The name of a record type: `A`, `AAAA`, … or `TYPE` and its number (RFC 3597).
pub(crate) fn type_name(kind: u16) -> String {
    let known = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        17 => "RP",
        18 => "AFSDB",
        24 => "SIG",
        25 => "KEY",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        37 => "CERT",
        39 => "DNAME",
        41 => "OPT",
        43 => "DS",
        44 => "SSHFP",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        49 => "DHCID",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        other => return format!("TYPE{other}"),
    };
    known.to_owned()
}

/// The name of a response code: `NOERROR`, … or `RCODE` and its number.
pub(crate) fn rcode_name(rcode: u8) -> String {
    let known = match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        other => return format!("RCODE{other}"),
    };
    known.to_owned()
}

/// Whether what follows a question is but what questions have: EDNS, a signature, a key.
fn is_plain_tail<'a>(
    message: &'a [u8],
    mut reader: Reader<'a>,
    authorities: u16,
    additional: u16,
) -> bool {
    for number in 0..authorities.saturating_add(additional).min(MAX_TAIL) {
        let Some((kind, length)) = skipped_record(message, &mut reader) else {
            return false;
        };
        let fits = match kind {
            TYPE_OPT => length <= MAX_OPTIONS,
            TYPE_SIG | TYPE_TKEY | TYPE_TSIG => length <= MAX_SIGNATURE,
            _ => number < authorities,
        };
        if !fits {
            return false;
        }
    }
    reader.is_empty()
}

/// The type of a record and how long its data are.
fn skipped_record<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<(u16, usize)> {
    name(message, reader)?;
    let kind = reader.u16()?;
    reader.u16()?;
    reader.u32()?;
    Some((kind, reader.vec16()?.rest().len()))
}

fn record<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Record> {
    let owner = name(message, reader)?;
    let (kind, class) = (reader.u16()?, reader.u16()?);
    reader.u32()?;
    let mut data = reader.vec16()?;
    let other = Rdata::Other {
        kind,
        length: data.rest().len(),
    };
    let data = match (class, kind) {
        (CLASS_IN, TYPE_A) => Rdata::Address(Ipv4Addr::from(data.array::<4>()?).into()),
        (CLASS_IN, TYPE_AAAA) => Rdata::Address(Ipv6Addr::from(data.array::<16>()?).into()),
        (CLASS_IN, TYPE_CNAME) => Rdata::Alias(name(message, &mut data)?),
        (CLASS_IN, TYPE_NS | TYPE_PTR) => Rdata::Text(name(message, &mut data)?),
        (CLASS_IN, TYPE_MX) => {
            let preference = data.u16()?;
            Rdata::Text(format!("{preference} {}", name(message, &mut data)?))
        }
        (CLASS_IN, TYPE_SRV) => {
            let [priority, weight, port] = [data.u16()?, data.u16()?, data.u16()?];
            let target = name(message, &mut data)?;
            Rdata::Text(format!("{priority} {weight} {port} {target}"))
        }
        (CLASS_IN, TYPE_TXT) => {
            let mut strings = data;
            let first = strings.vec8()?.rest();
            let mut shown = text::escaped_prefix(first, MAX_TEXT);
            if !strings.is_empty() && first.len() <= MAX_TEXT {
                text::mark_cut(&mut shown);
            }
            Rdata::Text(shown)
        }
        (CLASS_IN, TYPE_SVCB | TYPE_HTTPS) => {
            let priority = data.u16()?;
            let target = name(message, &mut data)?;
            // A record that is broken still says that there is one.
            Service::parse(priority, target, data).map_or(other, Rdata::Service)
        }
        _ => other,
    };
    Some(Record { name: owner, data })
}

/// Reads a name in lower case, following compression pointers (RFC 1035
/// section 4.1.4). Each must point before the last one, so this ends.
fn name<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<String> {
    let mut out = String::new();
    let mut wire_len = 1;
    let mut within = *reader;
    let mut jumped = false;
    let mut limit = message.len();
    loop {
        let len = within.u8()?;
        match len >> 6 {
            0 if len == 0 => break,
            0 => {
                let label = within.take(usize::from(len))?;
                wire_len += 1 + label.len();
                if wire_len > MAX_NAME {
                    return None;
                }
                if !out.is_empty() {
                    out.push('.');
                }
                push_label(&mut out, label);
            }
            3 => {
                let target = usize::from(len & 0x3f) << 8 | usize::from(within.u8()?);
                if !jumped {
                    *reader = within;
                    jumped = true;
                }
                if target >= limit || target < HEADER {
                    return None;
                }
                limit = target;
                within = Reader::new(message.get(target..)?);
            }
            _ => return None,
        }
    }
    if !jumped {
        *reader = within;
    }
    if out.is_empty() {
        out.push('.');
    }
    Some(out)
}

/// A dot inside a label is no separator.
fn push_label(out: &mut String, label: &[u8]) {
    for (at, part) in label.split(|byte| *byte == b'.').enumerate() {
        if at > 0 {
            out.push_str("\\046");
        }
        text::push_escaped(out, &part.to_ascii_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(flags: u16, counts: [u16; 2], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(counts[0].to_be_bytes());
        bytes.extend(counts[1].to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_chain_of_names_leads_to_addresses() {
        let mut body = b"\x03WWW\x01a\0\0\x01\0\x01".to_vec();
        // www.a CNAME b.a; b.a A 1.2.3.4; x.a A 9.9.9.9 (not asked for).
        body.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x10");
        body.extend(b"\x01B\x01A\0\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04");
        body.extend(b"\x01x\x01a\0\0\x01\0\x01\0\0\0\x3c\0\x04\x09\x09\x09\x09");
        let message = Message::parse(&message(0x8180, [1, 3], &body)).unwrap();
        assert_eq!(message.question.name, "www.a");
        assert_eq!(message.answer_texts(), ["b.a", "1.2.3.4", "9.9.9.9"]);
        let addresses: Vec<_> = message.addresses().collect();
        assert_eq!(addresses, [IpAddr::from([1, 2, 3, 4])]);
    }

    #[test]
    fn hostile_names_are_refused() {
        #[track_caller]
        fn check(name: &[u8], expected: Option<&str>) {
            let bytes = message(0x0100, [1, 0], &[name, b"\0\x01\0\x01"].concat());
            let name = Message::parse(&bytes).map(|message| message.question.name);
            assert_eq!(name.as_deref(), expected);
        }
        check(b"\0", Some("."));
        check(b"\x03a.b\0", Some("a\\046b"));
        check(b"\x02\x1b\xff\0", Some("\\027\\255"));
        check(b"\xc0\x0c", None);
        check(b"\x01a\xc0\x0c", None);
        check(b"\xc0\xff", None);
        check(b"\x40a\0", None);
        check(b"\x3fshort\0", None);
        let long = [&b"\x3f"[..], &[b'a'; 63]].concat().repeat(4);
        check(&[&long[..], b"\0"].concat(), None);
        check(
            &[&long[..192], b"\x3d", &[b'a'; 61], b"\0"].concat(),
            Some(&format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61))),
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(body: Vec<u8>, records in 0_u16..300) {
            let bytes = message(0x8180, [1, records], &[b"\x01a\0\0\x01\0\x01", &body[..]].concat());
            if let Some(message) = Message::parse(&bytes) {
                let _ = message.addresses().count();
                prop_assert_eq!(message.answers.len() + usize::from(message.left_out), usize::from(records));
            }
            let _ = Message::parse(&body);
        }
    }
}
