//! Where TLS begins in a client's stream of lines that asks for it: FTP (RFC 4217),
//! SMTP (RFC 3207), IMAP and POP3 (RFC 2595), NNTP (RFC 4642).

/// Most lines that are looked at, and most bytes: clients ask early.
const MAX_LINES: usize = 32;
const MAX_BYTES: usize = 4096;

/// How a stream that may ask for TLS goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartTls {
    /// Lines of text so far, none of which asks.
    NotYet,
    /// It does not ask.
    No,
    /// What follows here is TLS, where the server agrees.
    At(usize),
}

/// Reads the lines at the start of a client's stream.
pub(crate) fn starttls(stream: &[u8]) -> StartTls {
    let mut end = 0;
    for line in stream
        .split_inclusive(|byte| *byte == b'\n')
        .take(MAX_LINES)
    {
        end += line.len();
        if end > MAX_BYTES || !line.iter().all(is_text) {
            return StartTls::No;
        }
        if !line.ends_with(b"\n") {
            return StartTls::NotYet;
        }
        if asks(line.trim_ascii()) {
            return StartTls::At(end);
        }
    }
    if end < stream.len() {
        StartTls::No
    } else {
        StartTls::NotYet
    }
}

fn is_text(byte: &u8) -> bool {
    byte.is_ascii_graphic() || b" \t\r\n".contains(byte)
}

fn asks(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if words.next().is_some() {
        return false;
    }
    match second {
        None => is(first, "STARTTLS") || is(first, "STLS"),
        Some(how) if is(first, "AUTH") => {
            let ways = ["TLS", "TLS-C", "SSL", "TLS-P"];
            ways.iter().any(|way| is(how, way))
        }
        // Behind IMAP's tag.
        Some(second) => is(second, "STARTTLS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(stream: &[u8], expected: StartTls) {
        assert_eq!(starttls(stream), expected);
        if let StartTls::At(start) = expected {
            for end in 0..start {
                assert_eq!(starttls(&stream[..end]), StartTls::NotYet, "{end}");
            }
        }
    }

    #[test]
    fn tls_begins_after_the_line_that_asks_for_it() {
        check(b"AUTH TLS\r\n\x16\x03\x01", StartTls::At(10));
        check(b"EHLO a.example\r\nstarttls\r\n", StartTls::At(26));
        check(
            b"a001 CAPABILITY\r\na002 STARTTLS\r\n\x16",
            StartTls::At(32),
        );
        check(b"CAPA\nSTLS\n", StartTls::At(10));
        check(b"AUTH PLAIN AGEAYg==\r\n", StartTls::NotYet);
        check(b"DATA\r\nuse STARTTLS please\r\n", StartTls::NotYet);
        check(b"SSH-2.0-x\r\n\0\0\x05\x8c", StartTls::No);
        check(&b"NOOP\r\n".repeat(33), StartTls::No);
        check(&[b'x'; 5000], StartTls::No);
    }

    proptest! {
        #[test]
        fn a_start_is_within_the_stream(stream: Vec<u8>) {
            if let StartTls::At(start) = starttls(&stream) {
                prop_assert!(start <= stream.len());
            }
        }
    }
}
