//! As much of an HTTP/1.1 client (RFC 9112) as Firecracker's API needs:
//! answers with Content-Length, on a connection that stays open.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest head of an answer.
const MAX_HEAD: usize = 16 << 10;

/// Longest body of an answer.
const MAX_BODY: usize = 1 << 20;

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("no whole answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the connection was closed in the middle of an answer")]
    Closed,
    #[error("the answer's head is longer than {MAX_HEAD} bytes")]
    LongHead,
    #[error("the answer's body is longer than {MAX_BODY} bytes")]
    LongBody,
    #[error("the answer is not HTTP/1.1 with a Content-Length")]
    Malformed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection on which all answers together get one span of time.
pub(super) struct Client {
    stream: UnixStream,
    patience: Duration,
    deadline: Instant,
    /// Bytes that were read and not yet used.
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn new(stream: UnixStream, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            deadline: Instant::now() + patience,
            buffer: Vec::new(),
        }
    }

    pub(super) fn get(&mut self, path: &str) -> Result<Answer, HttpError> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
        let left = self.time_left()?;
        self.stream.set_write_timeout(Some(left))?;
        self.stream
            .write_all(request.as_bytes())
            .map_err(|error| self.failed(error))?;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = parse_head(self.buffer.get(..end).unwrap_or_default())?;
                self.buffer.drain(..end + 4);
                break head;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(HttpError::LongHead);
            }
            self.read_more()?;
        };
        while self.buffer.len() < head.length {
            self.read_more()?;
        }
        Ok(Answer {
            status: head.status,
            body: self.buffer.drain(..head.length).collect(),
        })
    }

    fn read_more(&mut self) -> Result<(), HttpError> {
        let left = self.time_left()?;
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 8192];
        let read = self.stream.read(&mut chunk);
        match read.map_err(|error| self.failed(error))? {
            0 => Err(HttpError::Closed),
            n => {
                self.buffer.extend(chunk.iter().take(n));
                Ok(())
            }
        }
    }

    fn time_left(&self) -> Result<Duration, HttpError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HttpError::Timeout(self.patience));
        }
        Ok(left)
    }

    fn failed(&self, error: io::Error) -> HttpError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                HttpError::Timeout(self.patience)
            }
            _ => HttpError::Io(error),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
}

/// Reads the head without the empty line at its end. Firecracker sends no
/// reason phrase, but the space before it.
fn parse_head(head: &[u8]) -> Result<Head, HttpError> {
    let head = std::str::from_utf8(head).map_err(|_| HttpError::Malformed)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|rest| rest.split(' ').next());
    let status = status.filter(|digits| digits.len() == 3);
    let status = number(status).ok_or(HttpError::Malformed)?;
    let status = u16::try_from(status).map_err(|_| HttpError::Malformed)?;
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HttpError::Malformed)?;
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::Malformed);
        }
        if name.eq_ignore_ascii_case("content-length") {
            let value = value.trim_matches([' ', '\t']);
            let given = number(Some(value)).ok_or(HttpError::Malformed)?;
            if length.is_some_and(|length| length != given) {
                return Err(HttpError::Malformed);
            }
            length = Some(given);
        }
    }
    // RFC 9112 section 6.3: these never have a body.
    if status < 200 || status == 204 || status == 304 {
        length = Some(0);
    }
    match length.ok_or(HttpError::Malformed)? {
        length if length > MAX_BODY => Err(HttpError::LongBody),
        length => Ok(Head { status, length }),
    }
}

fn number(digits: Option<&str>) -> Option<usize> {
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(head: &str, expected: Option<(u16, usize)>) {
        let head = parse_head(head.as_bytes());
        assert_eq!(head.ok().map(|head| (head.status, head.length)), expected);
    }

    #[test]
    fn heads() {
        let recorded = include_bytes!("../../tests/fixtures/firecracker/raw_response.txt");
        let end = find(recorded, b"\r\n\r\n").unwrap();
        check(
            std::str::from_utf8(&recorded[..end]).unwrap(),
            Some((200, 89)),
        );
        assert_eq!(recorded.len(), end + 4 + 89);
        check("HTTP/1.1 200 OK\r\ncontent-LENGTH:5", Some((200, 5)));
        check("HTTP/1.1 204 \r\nServer: Firecracker API", Some((204, 0)));
        check("HTTP/1.1 400\r\nContent-Length: 0", Some((400, 0)));
        check("HTTP/1.1 200 \r\nServer: x", None);
        check(
            "HTTP/1.1 200 \r\nContent-Length: 5\r\nContent-Length: 6",
            None,
        );
        check("HTTP/1.1 200 \r\nContent-Length: -1", None);
        check("HTTP/1.1 200 \r\nContent-Length: +1", None);
        check(
            "HTTP/1.1 200 \r\nContent-Length: 99999999999999999999",
            None,
        );
        check("HTTP/1.1 200 \r\nContent-Length: 1048577", None);
        check("HTTP/1.1 200 \r\nTransfer-Encoding: chunked", None);
        check("HTTP/1.1 20 \r\nContent-Length: 1", None);
        check("SSH-2.0-OpenSSH_9.2", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn no_head_panics(head: Vec<u8>) {
            _ = parse_head(&head);
        }
    }
}
