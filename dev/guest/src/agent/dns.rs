//! A stub resolver: one name, its IPv4 address, over UDP (RFC 1035 section 4).

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use rustls::crypto::ring;

use super::AgentError;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// Largest message over UDP without EDNS (RFC 1035 section 4.2.1).
const MAX_MESSAGE: usize = 512;
const ATTEMPTS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for IPv4 and IPv6 addresses, as C libraries do, and takes the first IPv4 address.
pub(super) fn lookup(resolver: Ipv4Addr, name: &str) -> Result<Ipv4Addr, AgentError> {
    let failed = |detail: String| AgentError::Resolve {
        name: name.to_owned(),
        detail,
    };
    let found = ask(resolver, name, TYPE_A).map_err(|error| failed(error.to_string()))?;
    ask(resolver, name, TYPE_AAAA).map_err(|error| failed(error.to_string()))?;
    match (found.rcode, found.addresses.first()) {
        (0, Some(address)) => Ok(*address),
        (0, None) => Err(failed("no address".to_owned())),
        (3, _) => Err(failed("no such name".to_owned())),
        (rcode, _) => Err(failed(format!("response code {rcode}"))),
    }
}

fn ask(resolver: Ipv4Addr, name: &str, qtype: u16) -> io::Result<Answer> {
    let id = random_id()?;
    let question = question(id, name, qtype)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((resolver, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..ATTEMPTS {
        match attempt(&socket, &question, id) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn attempt(socket: &UdpSocket, question: &[u8], id: u16) -> io::Result<Answer> {
    socket.send(question)?;
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer)?;
        let message = buffer.get(..length).unwrap_or_default();
        // Anything else is a late or forged answer: the right one may still come.
        if let Some(answer) = parse(message, id) {
            return Ok(answer);
        }
    }
}

fn random_id() -> io::Result<u16> {
    let mut id = [0; 2];
    ring::default_provider()
        .secure_random
        .fill(&mut id)
        .map_err(|_| io::Error::other("no randomness"))?;
    Ok(u16::from_be_bytes(id))
}

/// The query, or nothing where the name cannot be encoded.
fn question(id: u16, name: &str, qtype: u16) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(18 + name.len());
    // A standard query that wants recursion, with one question.
    for field in [id, 0x0100, 1, 0, 0, 0] {
        out.extend(field.to_be_bytes());
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..64).contains(n))?;
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(qtype.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    Some(out)
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    rcode: u16,
    addresses: Vec<Ipv4Addr>,
}

/// The response to query `id`; nothing where the message is not one.
fn parse(message: &[u8], id: u16) -> Option<Answer> {
    let mut reader = Reader(message);
    let same_id = reader.u16()? == id;
    let flags = reader.u16()?;
    if !same_id || flags & 0x8000 == 0 {
        return None;
    }
    let questions = reader.u16()?;
    let answers = reader.u16()?;
    reader.take(4)?;
    for _ in 0..questions {
        reader.skip_name()?;
        reader.take(4)?;
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        reader.skip_name()?;
        let kind = reader.u16()?;
        reader.take(6)?;
        let length = reader.u16()?;
        let data = reader.take(usize::from(length))?;
        if let (TYPE_A, Ok(octets)) = (kind, <[u8; 4]>::try_from(data)) {
            addresses.push(Ipv4Addr::from(octets));
        }
    }
    Some(Answer {
        rcode: flags & 0x000f,
        addresses,
    })
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Labels up to the root or to a pointer (RFC 1035 section 4.1.4), which is not followed.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.u8()? {
                0 => return Some(()),
                length @ 1..=63 => _ = self.take(usize::from(length))?,
                192.. => {
                    self.take(1)?;
                    return Some(());
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(rcode: u8) -> Vec<u8> {
        let mut message = question(7, "api.stripe.com", TYPE_A).unwrap();
        message[2] = 0x81;
        message[3] = 0x80 | rcode;
        message
    }

    #[test]
    fn question_has_the_form_of_the_rfc() {
        assert_eq!(
            question(0x1234, "a.bc", TYPE_A).unwrap(),
            b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01"
        );
        for bad in ["", "a..b", &"x".repeat(64)] {
            assert_eq!(question(1, bad, TYPE_A), None, "{bad}");
        }
    }

    #[test]
    fn reads_addresses_behind_an_alias() {
        let mut message = response(0);
        message[7] = 2;
        message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c");
        message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x0a");
        let expected = Answer {
            rcode: 0,
            addresses: vec![Ipv4Addr::new(203, 0, 113, 10)],
        };
        assert_eq!(parse(&message, 7), Some(expected));
        assert_eq!(parse(&message, 8), None, "another query's answer");
        for cut in 0..message.len() {
            assert_eq!(parse(&message[..cut], 7), None, "cut at {cut}");
        }
    }

    #[test]
    fn tells_the_response_code() {
        assert_eq!(parse(&response(3), 7).unwrap().rcode, 3);
        let query = question(7, "a", TYPE_A).unwrap();
        assert_eq!(parse(&query, 7), None, "a query is no answer");
    }
}
