//! The server's side of HTTP/1.1 (RFC 9112): requests with a known length, kept alive.

use std::io::{self, Read};

use super::log::Request;

const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 1 << 20;
const MAX_HEADERS: usize = 64;

/// What a client has sent and nobody has looked at.
#[derive(Default)]
pub(super) struct Requests {
    pending: Vec<u8>,
}

/// A request, and whether the client wants the connection to go on.
pub(super) struct Received {
    pub(super) request: Request,
    pub(super) keep_alive: bool,
}

impl Requests {
    /// The next whole request; nothing where the client has ended the connection.
    pub(super) fn next(&mut self, stream: &mut impl Read) -> io::Result<Option<Received>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some((received, length)) = parse(&self.pending)? {
                self.pending.drain(..length);
                return Ok(Some(received));
            }
            let length = stream.read(&mut chunk)?;
            if length == 0 {
                return if self.pending.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            self.pending.extend(chunk.get(..length).unwrap_or_default());
        }
    }
}

/// A response that carries JSON.
pub(super) fn response(status: &str, body: &str, keep_alive: bool) -> Vec<u8> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: application/json\r\n\
         Content-Length: {}\r\n\
         Connection: {connection}\r\n\
         \r\n\
         {body}",
        body.len()
    )
    .into_bytes()
}

/// The first request and its length in bytes, or nothing while it is not whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(Received, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(bytes).map_err(malformed)? else {
        return if bytes.len() > MAX_HEAD {
            Err(malformed("head is too long"))
        } else {
            Ok(None)
        };
    };
    let header = |name: &str| {
        head.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value))
    };
    if header("transfer-encoding").is_some() {
        return Err(malformed("chunked bodies are not supported"));
    }
    let length = match header("content-length") {
        None => 0,
        Some(text) => text.parse().map_err(malformed)?,
    };
    if length > MAX_BODY {
        return Err(malformed("body is too long"));
    }
    let end = body_at + length;
    let Some(body) = bytes.get(body_at..end) else {
        return Ok(None);
    };
    let received = Received {
        request: Request {
            host: header("host").unwrap_or_default().into_owned(),
            method: head.method.unwrap_or_default().to_owned(),
            path: head.path.unwrap_or_default().to_owned(),
            body: body.to_vec(),
            received_so_far: 0,
        },
        keep_alive: header("connection").is_none_or(|word| !word.eq_ignore_ascii_case("close")),
    };
    Ok(Some((received, end)))
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\
        GET /b HTTP/1.1\r\nhost: h\r\nConnection: Close\r\n\r\n";

    #[test]
    fn reads_requests_in_any_pieces() {
        for cut in 0..TWO.len() {
            let mut stream = TWO[..cut].chain(&TWO[cut..]);
            let mut requests = Requests::default();
            let first = requests.next(&mut stream).unwrap().unwrap();
            assert_eq!(first.request.body, b"abc");
            assert!(first.keep_alive);
            let second = requests.next(&mut stream).unwrap().unwrap();
            assert_eq!(
                (&*second.request.method, &*second.request.path),
                ("GET", "/b")
            );
            assert!(!second.keep_alive);
            assert!(requests.next(&mut stream).unwrap().is_none());
        }
    }

    #[test]
    fn refuses() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = Requests::default()
                .next(&mut text.as_bytes())
                .err()
                .unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        }
        check(
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "invalid digit",
        );
        check(
            "POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n",
            "too long",
        );
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "chunked",
        );
        check(
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
            "end of file",
        );
        check(
            &format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_HEAD)),
            "too long",
        );
        check("\u{1}\u{2}", "invalid");
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            _ = Requests::default().next(&mut &*bytes);
        }
    }
}
