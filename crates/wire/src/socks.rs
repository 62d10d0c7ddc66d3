//! Where what a SOCKS proxy is to pass on begins in a client's stream: version 4
//! and its extension for names (the protocol's own notes), and 5 (RFC 1928).

use crate::reader::Reader;

/// Longest user's or host's name.
const MAX_TEXT: usize = 255;
const CONNECT: u8 = 1;

/// How a stream that may ask a proxy goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socks {
    /// It is too short to tell.
    Incomplete,
    /// It asks no SOCKS proxy for a connection.
    Other,
    /// What is to be passed on begins here.
    Tunnel(usize),
}

/// Reads the requests at the start of a client's stream.
pub(crate) fn socks(stream: &[u8]) -> Socks {
    let mut reader = Reader::new(stream);
    let asked = match reader.u8() {
        Some(4) => version_4(&mut reader),
        Some(5) => version_5(&mut reader),
        Some(_) => return Socks::Other,
        None => return Socks::Incomplete,
    };
    match asked {
        Some(true) => Socks::Tunnel(stream.len() - reader.rest().len()),
        Some(false) => Socks::Other,
        None => Socks::Incomplete,
    }
}

/// Whether it is a request to connect; `None` while it is not whole.
fn version_4(reader: &mut Reader<'_>) -> Option<bool> {
    if reader.u8()? != CONNECT {
        return Some(false);
    }
    let [port, address] = [u32::from(reader.u16()?), reader.u32()?];
    let names_host = (1..=255).contains(&address);
    for _ in 0..if names_host { 2 } else { 1 } {
        let mut length = 0;
        while reader.u8()? != 0 {
            length += 1;
            if length > MAX_TEXT {
                return Some(false);
            }
        }
    }
    Some(port != 0)
}

fn version_5(reader: &mut Reader<'_>) -> Option<bool> {
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
        return Some(false);
    }
    match reader.u8()? {
        1 => drop(reader.take(4)?),
        3 => drop(reader.vec8()?),
        4 => drop(reader.take(16)?),
        _ => return Some(false),
    }
    Some(reader.u16()? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(parts: &[&[u8]], expected: Socks) {
        let stream = parts.concat();
        assert_eq!(socks(&stream), expected);
        if let Socks::Tunnel(start) = expected {
            for end in 0..start {
                assert_eq!(socks(&stream[..end]), Socks::Incomplete, "{end}");
            }
        }
    }

    #[test]
    fn tunnels_begin_after_the_request() {
        check(
            &[&[4, 1, 1, 187, 192, 0, 2, 1, 0], b"hello"],
            Socks::Tunnel(9),
        );
        check(
            &[&[4, 1, 1, 187, 192, 0, 2, 1], b"me\0hello"],
            Socks::Tunnel(11),
        );
        check(
            &[&[4, 1, 1, 187, 0, 0, 0, 7], b"\0a.example\0x"],
            Socks::Tunnel(19),
        );
        check(&[&[4, 2, 1, 187]], Socks::Other);
        check(&[&[4, 1, 1, 187, 192, 0, 2, 1], &[b'a'; 300]], Socks::Other);
        let request = [5, 1, 0, 1, 192, 0, 2, 1, 1, 187];
        check(&[&[5, 1, 0], &request, b"hello"], Socks::Tunnel(13));
        let password = b"\x01\x02me\x03pwd";
        check(&[&[5, 2, 0, 2], password, &request], Socks::Tunnel(22));
        let named = [&[5, 1, 0, 3, 9], &b"a.example"[..], &[1, 187]].concat();
        check(&[&[5, 1, 0], &named], Socks::Tunnel(19));
        check(&[&[5, 1, 0, 5, 2, 0]], Socks::Other);
        check(&[b"GET /"], Socks::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(version in 3_u8..7, bytes: Vec<u8>) {
            let stream = [&[version][..], &bytes].concat();
            if let Socks::Tunnel(start) = socks(&stream) {
                prop_assert!(start <= stream.len());
            }
        }
    }
}
