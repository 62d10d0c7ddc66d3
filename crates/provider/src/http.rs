//! As much of an HTTP/1.1 client (RFC 9112) as the APIs of VMMs and of Docker
//! need: answers with Content-Length or in chunks, on a connection that stays
//! open.

mod stream;

use serde_json::error::Category;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest head of an answer.
const MAX_HEAD: usize = 16 << 10;

/// Longest line between two chunks.
const MAX_LINE: usize = 1024;

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("no whole answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the connection was closed in the middle of an answer")]
    Closed,
    #[error("the answer's head is longer than {MAX_HEAD} bytes")]
    LongHead,
    #[error("the answer's body is longer than {0} bytes")]
    LongBody(usize),
    #[error("the answer is not HTTP/1.1 of a known length")]
    Malformed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection on which all answers together get one span of time.
pub(crate) struct Client {
    stream: UnixStream,
    patience: Duration,
    deadline: Instant,
    max_body: usize,
    /// Bytes that were read and not yet used.
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new(stream: UnixStream, patience: Duration, max_body: usize) -> Self {
        Self {
            stream,
            patience,
            deadline: Instant::now() + patience,
            max_body,
            buffer: Vec::new(),
        }
    }

    /// Gives the answers from now on another span of time.
    pub(crate) fn give(&mut self, patience: Duration) {
        self.patience = patience;
        self.deadline = Instant::now() + patience;
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer, HttpError> {
        let head = self.ask(path)?;
        let body = match head.body {
            Body::Length(length) => self.exactly(length)?,
            Body::Chunked => self.chunks()?,
        };
        Ok(Answer {
            status: head.status,
            body,
        })
    }

    fn ask(&mut self, path: &str) -> Result<Head, HttpError> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
        let left = self.time_left()?;
        self.stream.set_write_timeout(Some(left))?;
        match self.stream.write_all(request.as_bytes()) {
            // Firecracker refuses an eleventh client before it is asked: what
            // it says then is still there to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(|error| self.failed(error))?,
        }
        parse_head(&self.until(b"\r\n\r\n", MAX_HEAD, HttpError::LongHead)?)
    }

    /// RFC 9112 section 7.1. What follows the last chunk is not looked at.
    fn chunks(&mut self) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = chunk_size(&line)?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            if size > self.max_body.saturating_sub(body.len()) {
                return Err(HttpError::LongBody(self.max_body));
            }
            body.extend(self.exactly(size)?);
            if !self.line()?.is_empty() {
                return Err(HttpError::Malformed);
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, HttpError> {
        self.until(b"\r\n", MAX_LINE, HttpError::Malformed)
    }

    /// Everything up to `mark`, which is taken off.
    fn until(&mut self, mark: &[u8], max: usize, longer: HttpError) -> Result<Vec<u8>, HttpError> {
        loop {
            if let Some(end) = find(&self.buffer, mark) {
                let found = self.buffer.drain(..end).collect();
                self.buffer.drain(..mark.len());
                return Ok(found);
            }
            if self.buffer.len() > max {
                return Err(longer);
            }
            self.read_more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, HttpError> {
        if length > self.max_body {
            return Err(HttpError::LongBody(self.max_body));
        }
        while self.buffer.len() < length {
            self.read_more()?;
        }
        Ok(self.buffer.drain(..length).collect())
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
    body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
}

/// Reads the head without the empty line at its end. Firecracker and Cloud
/// Hypervisor send no reason phrase, but the space before it.
fn parse_head(head: &[u8]) -> Result<Head, HttpError> {
    let head = std::str::from_utf8(head).map_err(|_| HttpError::Malformed)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|rest| rest.split(' ').next());
    let status = status.filter(|digits| digits.len() == 3);
    let status = number(status).ok_or(HttpError::Malformed)?;
    let status = u16::try_from(status).map_err(|_| HttpError::Malformed)?;
    let mut body = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HttpError::Malformed)?;
        let value = value.trim_matches([' ', '\t']);
        let given = if name.eq_ignore_ascii_case("transfer-encoding") {
            let chunked = value.eq_ignore_ascii_case("chunked");
            chunked.then_some(Body::Chunked)
        } else if name.eq_ignore_ascii_case("content-length") {
            number(Some(value)).map(Body::Length)
        } else {
            continue;
        };
        let given = given.ok_or(HttpError::Malformed)?;
        // Two lengths are one too many to know where the answer ends.
        if body.is_some_and(|body| body != given) {
            return Err(HttpError::Malformed);
        }
        body = Some(given);
    }
    // RFC 9112 section 6.3: these never have a body.
    if status < 200 || status == 204 || status == 304 {
        body = Some(Body::Length(0));
    }
    let body = body.ok_or(HttpError::Malformed)?;
    Ok(Head { status, body })
}

fn number(digits: Option<&str>) -> Option<usize> {
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The size in the line before a chunk, whose extensions are not looked at.
fn chunk_size(line: &[u8]) -> Result<usize, HttpError> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    hexadecimal(digits).ok_or(HttpError::Malformed)
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(digits).ok()?.trim_end();
    let is_hexadecimal = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    usize::from_str_radix(Some(digits).filter(is_hexadecimal)?, 16).ok()
}

/// Where JSON is not what it should be. What stands there may be a secret, and
/// the error's own text would quote it.
pub(crate) fn place_of(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Data => "a value of another kind",
        Category::Eof => "its end",
        Category::Io | Category::Syntax => "no JSON",
    };
    let (line, column) = (error.line(), error.column());
    format!("{what} at line {line} column {column}")
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
        let expected = expected.map(|(status, length)| (status, Body::Length(length)));
        let head = parse_head(head.as_bytes());
        assert_eq!(head.ok().map(|head| (head.status, head.body)), expected);
    }

    fn ask(answer: &[u8]) -> Result<Answer, HttpError> {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(answer).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = Client::new(near, Duration::from_secs(1), 1000).get("/");
        drop(far);
        answer
    }

    /// As Firecracker's eleventh client gets it.
    #[test]
    fn an_answer_before_the_question() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"HTTP/1.1 503\r\nContent-Length: 4\r\n\r\nfull")
            .unwrap();
        drop(far);
        let answer = Client::new(near, Duration::from_secs(1), 1000).get("/");
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (503, &b"full"[..]));
    }

    #[test]
    fn chunks() {
        let say = |chunks: &str| {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            ask(format!("{head}{chunks}").as_bytes())
        };
        let whole = say("5;x=y\r\nhello\r\n00A\r\n, new wor \r\n0\r\nTrailer: x\r\n\r\n").unwrap();
        assert_eq!(whole.body, b"hello, new wor ");
        assert!(say("0\r\n\r\n").unwrap().body.is_empty());
        for bad in [
            "-1\r\n",
            "g\r\n",
            "\r\n",
            "5\r\nhello!!",
            "3e9\r\n",
            "ffffffffffffffff\r\n",
            "5\r\nhe",
        ] {
            assert!(say(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn heads() {
        let recorded = include_bytes!("../tests/fixtures/firecracker/raw_response.txt");
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
        check("HTTP/1.1 200 \r\nTransfer-Encoding: gzip", None);
        check(
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
            None,
        );
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
