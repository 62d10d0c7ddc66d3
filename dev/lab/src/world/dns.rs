//! The resolver: answers A questions about the names of a small zone (RFC 1035).

use std::net::Ipv4Addr;

use super::log::Question;
use super::places::ZONE;

const TYPE_A: u16 = 1;
const HEADER: usize = 12;
/// Seconds for which an answer may be kept.
const TTL: u32 = 60;

/// The question in a query and the response to it; nothing where the bytes are no query
/// with one question.
///
/// A known name has exactly one IPv4 address; any other type is answered with no data
/// (NOERROR), any other name with NXDOMAIN.
pub(super) fn respond(query: &[u8]) -> Option<(Question, Vec<u8>)> {
    let (header, rest) = query.split_first_chunk::<HEADER>()?;
    let [id0, id1, flags, _, 0, 1, 0, 0, 0, 0, 0, _] = *header else {
        return None;
    };
    // A query (no QR bit) of the standard kind (opcode 0).
    if flags & 0xf8 != 0 {
        return None;
    }
    let (name, after) = read_name(rest)?;
    let (&[type0, type1, 0, 1], _) = after.split_first_chunk::<4>()? else {
        return None;
    };
    let qtype = u16::from_be_bytes([type0, type1]);
    let question = rest.get(..rest.len() - after.len() + 4)?;
    let address = ZONE
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(&name))
        .map(|(_, address)| *address);
    let answer = address.filter(|_| qtype == TYPE_A);
    let rcode = if address.is_some() { 0 } else { 3 };
    // Response, authoritative, recursion desired as asked; recursion available.
    let flags = [0x84 | flags & 1, 0x80 | rcode];
    let counts = [0, 1, 0, u8::from(answer.is_some()), 0, 0, 0, 0];
    let mut response = vec![id0, id1];
    response.extend(flags);
    response.extend(counts);
    response.extend(question);
    response.extend(answer.map(record).into_iter().flatten());
    Some((Question { name, qtype }, response))
}

/// A resource record whose name points at the question's.
fn record(address: Ipv4Addr) -> Vec<u8> {
    let mut record = b"\xc0\x0c\0\x01\0\x01".to_vec();
    record.extend(TTL.to_be_bytes());
    record.extend(4_u16.to_be_bytes());
    record.extend(address.octets());
    record
}

/// A name without compression, and what follows it.
fn read_name(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut name = String::new();
    loop {
        let (&length, rest) = bytes.split_first()?;
        if length == 0 {
            return Some((name, rest));
        }
        if length > 63 || name.len() > 255 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(str::from_utf8(label).ok()?);
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, qtype: u16) -> Vec<u8> {
        let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.push(0);
        query.extend(qtype.to_be_bytes());
        query.extend([0, 1]);
        query
    }

    #[track_caller]
    fn check(name: &str, qtype: u16, rcode: u8, address: Option<[u8; 4]>) {
        let query = query(name, qtype);
        let (question, response) = respond(&query).unwrap();
        let name = name.to_owned();
        assert_eq!(question, Question { name, qtype });
        assert_eq!(response[..2], query[..2], "id");
        assert_eq!(response[2..4], [0x85, 0x80 | rcode], "flags");
        assert_eq!(response[7], u8::from(address.is_some()), "answers");
        assert_eq!(response[12..query.len()], query[12..], "question");
        if let Some(address) = address {
            assert!(response.ends_with(&address), "{response:?}");
        }
    }

    #[test]
    fn answers_by_the_zone() {
        check("api.stripe.com", 1, 0, Some([203, 0, 113, 10]));
        check("API.Stripe.COM", 1, 0, Some([203, 0, 113, 10]));
        check("pastebin-drop.example", 1, 0, Some([203, 0, 113, 66]));
        check("api.stripe.com", 28, 0, None);
        check("stripe.com", 1, 3, None);
    }

    #[test]
    fn takes_a_question_with_edns() {
        let mut query = query("api.stripe.com", 1);
        query[11] = 1;
        query.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
        assert!(respond(&query).is_some());
    }

    proptest! {
        #[test]
        fn survives_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            respond(&bytes);
            let start = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0";
            bytes.splice(..0, start.iter().copied());
            respond(&bytes);
        }
    }
}
