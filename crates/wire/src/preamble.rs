//! What may stand before the protocol that names a host: what asks PostgreSQL for
//! encryption, the header of a proxy that says whom it passes on, an alert of TLS.

use crate::reader::Reader;

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preamble {
    /// It is too short to tell.
    Incomplete,
    /// With nothing of the kind.
    None,
    /// With something of so many bytes that names no host.
    Of(usize),
}

/// How a PostgreSQL client asks for TLS or GSSAPI (SSLRequest, GSSENCRequest): length
/// 8 and a code. The server's answer is one byte, and the connection goes on.
const ENCRYPTION_REQUESTS: [&[u8]; 2] = [
    &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f],
    &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30],
];
/// The PROXY protocol of HAProxy: a line in version 1, with this signature in version 2.
const PROXY_1: &[u8] = b"PROXY ";
const MAX_PROXY_1: usize = 107;
const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// A warning before the hello, which servers pass over; of another level or version
/// it is as long.
const ALERT: [&[u8]; 5] = [
    &[21, 3, 0, 0, 2],
    &[21, 3, 1, 0, 2],
    &[21, 3, 2, 0, 2],
    &[21, 3, 3, 0, 2],
    &[21, 3, 4, 0, 2],
];
const ALERT_LEN: usize = 7;

/// Looks at the start of a stream, or at what follows another preamble.
pub(crate) fn preamble(stream: &[u8]) -> Preamble {
    let known = [PROXY_1, PROXY_2].into_iter();
    let mut known = known.chain(ENCRYPTION_REQUESTS).chain(ALERT);
    let len = if ENCRYPTION_REQUESTS.iter().any(|it| stream.starts_with(it)) {
        Some(8)
    } else if ALERT.iter().any(|it| stream.starts_with(it)) {
        Some(ALERT_LEN)
    } else if stream.starts_with(PROXY_1) {
        let line = stream.get(..MAX_PROXY_1).unwrap_or(stream);
        match line.iter().position(|byte| *byte == b'\n') {
            None if line.len() == MAX_PROXY_1 => return Preamble::None,
            end => end.map(|end| end + 1),
        }
    } else if stream.starts_with(PROXY_2) {
        proxy_2(stream)
    } else if known.any(|it| it.starts_with(stream)) {
        None
    } else {
        return Preamble::None;
    };
    match len {
        Some(len) if len <= stream.len() => Preamble::Of(len),
        _ => Preamble::Incomplete,
    }
}

/// Length of a header of version 2.
fn proxy_2(stream: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(stream);
    reader.take(PROXY_2.len() + 2)?;
    Some(PROXY_2.len() + 4 + usize::from(reader.u16()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_is_passed_over_as_a_whole() {
        #[track_caller]
        fn check(preamble_bytes: &[u8]) {
            let len = preamble_bytes.len();
            let stream = [preamble_bytes, b"GET /"].concat();
            assert_eq!(preamble(&stream), Preamble::Of(len));
            for end in 0..len {
                assert_eq!(preamble(&stream[..end]), Preamble::Incomplete, "{end}");
            }
        }
        check(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
        check(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]);
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        check(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c123456789012");
        check(&[21, 3, 1, 0, 2, 1, 0]);
    }

    #[test]
    fn other_starts_are_none() {
        let long = [PROXY_1, &[b'x'; 200]].concat();
        let starts: [&[u8]; 5] = [
            b"\x16\x03\x01",
            b"GET /",
            b"\r\nGET /",
            b"\x15\x03\x03\0\x1a",
            &long,
        ];
        for start in starts {
            assert_eq!(preamble(start), Preamble::None, "{start:?}");
        }
    }

    proptest! {
        #[test]
        fn one_is_within_the_stream(which in 0_usize..4, bytes: Vec<u8>) {
            let start = [PROXY_1, PROXY_2, ALERT[0], b""][which];
            let stream = [start, &bytes].concat();
            if let Preamble::Of(len) = preamble(&stream) {
                prop_assert!((1..=stream.len()).contains(&len));
            }
        }
    }
}
