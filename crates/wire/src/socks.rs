//! Whom a SOCKS proxy is asked for, and where what it is to pass on begins in a
//! client's stream: version 4 and its extension for names (the protocol's own
//! notes), and 5 (RFC 1928).

use crate::reader::Reader;

/// Longest user's or host's name.
const MAX_TEXT: usize = 255;
const CONNECT: u8 = 1;

/// How a stream that may ask a proxy goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socks<'a> {
    /// It is too short to tell.
    Incomplete,
    /// It asks no SOCKS proxy for a connection.
    Other,
    /// What is to be passed on begins here, to the host of this name or to an
    /// address.
    Tunnel(usize, Option<&'a [u8]>),
}

/// Reads the requests at the start of a client's stream.
pub(crate) fn socks(stream: &[u8]) -> Socks<'_> {
    let mut reader = Reader::new(stream);
    let asked = match reader.u8() {
        Some(4) => version_4(&mut reader),
        Some(5) => version_5(&mut reader),
        Some(_) => return Socks::Other,
        None => return Socks::Incomplete,
    };
    match asked {
        Some(Asked::Connect(host)) => Socks::Tunnel(stream.len() - reader.rest().len(), host),
        Some(Asked::Other) => Socks::Other,
        None => Socks::Incomplete,
    }
}

/// What a whole request asks for.
enum Asked<'a> {
    /// A connection to a host of this name, or to an address.
    Connect(Option<&'a [u8]>),
    Other,
}

impl<'a> Asked<'a> {
    const fn connect(port: u16, host: Option<&'a [u8]>) -> Self {
        match port {
            0 => Self::Other,
            _ => Self::Connect(host),
        }
    }
}

/// `None` while the request is not whole.
fn version_4<'a>(reader: &mut Reader<'a>) -> Option<Asked<'a>> {
    if reader.u8()? != CONNECT {
        return Some(Asked::Other);
    }
    let (port, address) = (reader.u16()?, reader.u32()?);
    let names_host = (1..=255).contains(&address);
    let mut host = None;
    for is_host in if names_host {
        &[false, true][..]
    } else {
        &[false]
    } {
        let start = reader.rest().get(..=MAX_TEXT).unwrap_or(reader.rest());
        let Some(end) = start.iter().position(|byte| *byte == 0) else {
            return (start.len() > MAX_TEXT).then_some(Asked::Other);
        };
        let text = reader.take(end)?;
        reader.u8()?;
        host = is_host.then_some(text);
    }
    Some(Asked::connect(port, host))
}

fn version_5<'a>(reader: &mut Reader<'a>) -> Option<Asked<'a>> {
    const PASSWORDS: u8 = 1;
    reader.vec8()?;
    let mut next = reader.u8()?;
    if next == PASSWORDS {
        // A user and a password (RFC 1929).
        reader.vec8()?;
        reader.vec8()?;
        next = reader.u8()?;
    }
    if next != 5 || reader.u8()? != CONNECT || reader.u8()? != 0 {
        return Some(Asked::Other);
    }
    let mut host = None;
    match reader.u8()? {
        1 => drop(reader.take(4)?),
        3 => host = Some(reader.vec8()?.rest()),
        4 => drop(reader.take(16)?),
        _ => return Some(Asked::Other),
    }
    Some(Asked::connect(reader.u16()?, host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(parts: &[&[u8]], expected: Socks<'_>) {
        let stream = parts.concat();
        assert_eq!(socks(&stream), expected);
        if let Socks::Tunnel(start, _) = expected {
            for end in 0..start {
                assert_eq!(socks(&stream[..end]), Socks::Incomplete, "{end}");
            }
        }
    }

    #[test]
    fn tunnels_begin_after_the_request() {
        check(
            &[&[4, 1, 1, 187, 192, 0, 2, 1, 0], b"hello"],
            Socks::Tunnel(9, None),
        );
        check(
            &[&[4, 1, 1, 187, 192, 0, 2, 1], b"me\0hello"],
            Socks::Tunnel(11, None),
        );
        check(
            &[&[4, 1, 1, 187, 0, 0, 0, 7], b"\0a.example\0x"],
            Socks::Tunnel(19, Some(b"a.example")),
        );
        check(&[&[4, 2, 1, 187]], Socks::Other);
        check(&[&[4, 1, 1, 187, 192, 0, 2, 1], &[b'a'; 300]], Socks::Other);
        let request = [5, 1, 0, 1, 192, 0, 2, 1, 1, 187];
        check(&[&[5, 1, 0], &request, b"hello"], Socks::Tunnel(13, None));
        let password = b"\x01\x02me\x03pwd";
        check(
            &[&[5, 2, 0, 2], password, &request],
            Socks::Tunnel(22, None),
        );
        let named = [&[5, 1, 0, 3, 9], &b"a.example"[..], &[1, 187]].concat();
        check(&[&[5, 1, 0], &named], Socks::Tunnel(19, Some(b"a.example")));
        check(&[&[5, 1, 0, 5, 2, 0]], Socks::Other);
        check(&[b"GET /"], Socks::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(version in 3_u8..7, bytes: Vec<u8>) {
            let stream = [&[version][..], &bytes].concat();
            if let Socks::Tunnel(start, _) = socks(&stream) {
                prop_assert!(start <= stream.len());
            }
        }
    }
}
