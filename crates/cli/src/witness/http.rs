//! As much of HTTP/1.1 (RFC 9112) as a witness needs on both ends: one
//! request on a connection, bodies of a known length.

use sandtrace_audit_chain::witness::MAX_REQUEST;
use std::io::{self, Read, Write};

/// Longest head.
const MAX_HEAD: usize = 16 << 10;

/// Longest answer that a client reads.
const MAX_ANSWER: usize = 64 << 10;

/// What a client asks.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Media type of the body.
    pub(super) form: String,
    pub(super) body: Vec<u8>,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client is to be told this.
    Bad(Answer),
    /// The client is not there any more, or too slow.
    Gone,
}

impl Answer {
    pub(super) fn new(status: u16, form: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            form: form.to_owned(),
            body: body.into(),
        }
    }

    pub(super) fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            reason(self.status),
            self.form,
            self.body.len()
        );
        // One write, so that one packet has it all.
        out.write_all(&[head.as_bytes(), &self.body].concat())
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    }
}

/// Reads one request.
pub(super) fn read_request(stream: &mut (impl Read + Write)) -> Result<Request, NoRequest> {
    let mut buffer = Vec::new();
    let head = loop {
        match parse_head(&buffer) {
            Ok(Some(head)) => break head,
            Ok(None) if buffer.len() > MAX_HEAD => return Err(bad(431, "the head is too long")),
            Ok(None) => read_more(stream, &mut buffer)?,
            Err(answer) => return Err(NoRequest::Bad(answer)),
        }
    };
    if head.expects_continue && buffer.len() < head.length + head.body_length {
        let go_on = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        go_on.map_err(|_| NoRequest::Gone)?;
    }
    buffer.drain(..head.length);
    while buffer.len() < head.body_length {
        read_more(stream, &mut buffer)?;
    }
    buffer.truncate(head.body_length);
    Ok(Request {
        method: head.method,
        path: head.path,
        body: buffer,
    })
}

struct Head {
    /// Of the head itself.
    length: usize,
    method: String,
    path: String,
    body_length: usize,
    expects_continue: bool,
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Answer> {
    let malformed = || Answer::text(400, "this is not HTTP/1.1");
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|_| malformed())?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let (Some(method), Some(path)) = (request.method, request.path) else {
        return Err(malformed());
    };
    let headers = Headers(request.headers);
    if headers.get("transfer-encoding").is_some() {
        return Err(Answer::text(411, "send a Content-Length"));
    }
    let body_length = match headers.length().ok_or_else(malformed)? {
        None if method == "POST" => return Err(Answer::text(411, "send a Content-Length")),
        length => length.unwrap_or(0),
    };
    if body_length > MAX_REQUEST {
        return Err(Answer::text(413, "the body is too long"));
    }
    let expect = headers.get("expect").unwrap_or_default();
    Ok(Some(Head {
        length,
        method: method.to_owned(),
        path: path.to_owned(),
        body_length,
        expects_continue: expect.eq_ignore_ascii_case(b"100-continue"),
    }))
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn get(&self, name: &str) -> Option<&'a [u8]> {
        let mut named = self
            .0
            .iter()
            .filter(|one| one.name.eq_ignore_ascii_case(name));
        named.next().map(|header| header.value)
    }

    /// `None` where lengths are given that are none, or that differ.
    fn length(&self) -> Option<Option<usize>> {
        let named = |one: &&httparse::Header<'_>| one.name.eq_ignore_ascii_case("content-length");
        let mut found = None;
        for header in self.0.iter().filter(named) {
            let digits = std::str::from_utf8(header.value).ok()?;
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // A number that does not fit is too long in any case.
            let length = is_number.then(|| digits.parse().unwrap_or(usize::MAX))?;
            if found.is_some_and(|other| other != length) {
                return None;
            }
            found = Some(length);
        }
        Some(found)
    }
}

fn bad(status: u16, why: &str) -> NoRequest {
    NoRequest::Bad(Answer::text(status, why))
}

fn read_more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<(), NoRequest> {
    match read_into(stream, buffer) {
        Ok(0) => Err(NoRequest::Gone),
        Ok(_) => Ok(()),
        Err(error) if is_timeout(&error) => Err(bad(408, "the request took too long")),
        Err(_) => Err(NoRequest::Gone),
    }
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn read_into(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 8192];
    loop {
        match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                let count = read?;
                buffer.extend(chunk.iter().take(count));
                return Ok(count);
            }
        }
    }
}

/// Posts a body and reads the answer.
pub(super) fn post(
    stream: &mut (impl Read + Write),
    host: &str,
    path: &str,
    body: &[u8],
) -> io::Result<Answer> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    loop {
        let head = parse_answer(&bytes)?;
        let whole = head.as_ref().and_then(Partial::length);
        if whole.is_none_or(|whole| bytes.len() < whole) {
            if bytes.len() > MAX_HEAD + MAX_ANSWER {
                return Err(strange("is too long"));
            }
            if read_into(stream, &mut bytes)? > 0 {
                continue;
            }
            if whole.is_some() {
                return Err(strange("is cut short"));
            }
        }
        // Without a length, the end of the connection is the end.
        let head = head.ok_or_else(|| strange("is cut short"))?;
        bytes.truncate(whole.unwrap_or(bytes.len()));
        let body = bytes.split_off(head.length.min(bytes.len()));
        return Ok(Answer::new(head.status, &head.form, body));
    }
}

/// The head of an answer.
struct Partial {
    /// Of the head itself.
    length: usize,
    status: u16,
    form: String,
    body_length: Option<usize>,
}

impl Partial {
    /// Of head and body, where the answer says it.
    fn length(&self) -> Option<usize> {
        Some(self.length.saturating_add(self.body_length?))
    }
}

fn parse_answer(bytes: &[u8]) -> io::Result<Option<Partial>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer
        .parse(bytes)
        .map_err(|_| strange("is not HTTP/1.1"))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let headers = Headers(answer.headers);
    if headers.get("transfer-encoding").is_some() {
        return Err(strange("has no length"));
    }
    let form = headers.get("content-type").unwrap_or_default();
    Ok(Some(Partial {
        length,
        status: answer.code.unwrap_or_default(),
        form: String::from_utf8_lossy(form).into_owned(),
        body_length: headers.length().ok_or_else(|| strange("has no length"))?,
    }))
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer {what}"))
}
