//! Just enough HTTP/1.1 (RFC 9112): one request, one response with a known length.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::AgentError;

/// Largest response that is read, headers and body, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;
const MAX_HEADERS: usize = 32;
/// How long a connection or an answer may take; an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

pub(super) fn post(host: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\n\
         Host: {host}\r\n\
         User-Agent: billing-agent/1.0\r\n\
         Authorization: Bearer FAKE-key-of-the-lab\r\n\
         Accept: application/json\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\
         \r\n\
         {body}",
        body.len()
    )
    .into_bytes()
}

pub(super) fn get(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\n\
         Host: {host}\r\n\
         User-Agent: billing-agent/1.0\r\n\
         Accept: */*\r\n\
         Connection: close\r\n\
         \r\n"
    )
    .into_bytes()
}

/// A connection that sends every write at once and never waits for ever.
pub(super) fn connect(address: SocketAddr, host: &str) -> Result<TcpStream, AgentError> {
    let connect = || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    connect().map_err(|source| AgentError::Network {
        doing: "connect to",
        host: host.to_owned(),
        source,
    })
}

/// One request in clear text over its own connection.
pub(super) fn fetch(
    address: SocketAddr,
    host: &str,
    request: &[u8],
) -> Result<Response, AgentError> {
    let mut stream = connect(address, host)?;
    stream
        .write_all(request)
        .and_then(|()| read_response(&mut stream))
        .map_err(|source| AgentError::Network {
            doing: "talk to",
            host: host.to_owned(),
            source,
        })
}

/// Reads up to the end of the body that Content-Length announces.
pub(super) fn read_response(stream: &mut impl Read) -> io::Result<Response> {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(response) = parse(&received)? {
            return Ok(response);
        }
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend(chunk.get(..length).unwrap_or_default());
        if received.len() > MAX_RESPONSE {
            return Err(malformed("response is too long"));
        }
    }
}

/// The response, or nothing while it is not whole.
fn parse(received: &[u8]) -> io::Result<Option<Response>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(received).map_err(malformed)? else {
        return Ok(None);
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| str::from_utf8(header.value).ok()?.trim().parse().ok())
        .ok_or_else(|| malformed("response has no length"))?;
    let status = head
        .code
        .ok_or_else(|| malformed("response has no status"))?;
    let body = received.get(body_at..).unwrap_or_default().get(..length);
    Ok(body.map(|body| Response {
        status,
        body: body.to_vec(),
    }))
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_response_in_pieces() {
        let text = b"HTTP/1.1 201 Created\r\nContent-LENGTH: 5\r\n\r\nhello";
        for cut in 0..text.len() {
            assert!(parse(&text[..cut]).unwrap().is_none(), "cut at {cut}");
            let mut pieces = text[..cut].chain(&text[cut..]);
            let response = read_response(&mut pieces).unwrap();
            assert_eq!((response.status, &*response.body), (201, &b"hello"[..]));
        }
    }

    #[test]
    fn refuses_what_has_no_end() {
        #[track_caller]
        fn check(text: &[u8], expected: &str) {
            let error = read_response(&mut &*text).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        }
        check(b"HTTP/1.1 200 OK\r\n\r\n", "no length");
        check(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            "end of file",
        );
        check(b"SSH-2.0-x\r\n\r\n", "invalid");
        let long = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
            &[b'x'; 99_999][..],
        ];
        check(&long.concat(), "too long");
    }
}
