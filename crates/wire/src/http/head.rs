//! The head of one request (RFC 9112 sections 3, 5 and 6), read as leniently as
//! any server does.

use super::HttpFacts;
use super::authority::Hosts;
use crate::text;

/// What the head of a request says.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) facts: HttpFacts,
    /// Every host that it names, the one that counts first.
    pub(crate) hosts: Vec<String>,
    /// Servers may read its host differently.
    pub(crate) ambiguous: bool,
    pub(super) body: Body,
    /// It asks that another protocol follows.
    pub(crate) switches: bool,
}

/// What stands between a head and the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Bytes(u64),
    Chunked,
    /// Servers may not agree on where it ends.
    Unclear,
}

/// What the first line of a stream or of what follows a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Request {
        method: &'a str,
        target: &'a [u8],
        /// A body in chunks is of HTTP/1.1.
        minor: u8,
    },
    /// HTTP of a form or version that is not read.
    Odd,
    Other,
}

/// Servers take any method for one; the known ones have at most 17 letters.
const MAX_METHOD: usize = 255;
const MAX_PATH: usize = 1024;
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Whether a stream begins with a method and a blank, or with a beginning of that
/// (RFC 9110 section 5.6.2). No server knows a method that begins with no letter.
pub(super) fn may_be_request(stream: &[u8]) -> bool {
    if stream
        .first()
        .is_some_and(|byte| !byte.is_ascii_alphabetic())
    {
        return false;
    }
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match stream.iter().position(|byte| !is_token(byte)) {
        Some(end) => {
            (1..=MAX_METHOD).contains(&end) && stream.get(end).is_some_and(|byte| is_blank(*byte))
        }
        None => stream.len() <= MAX_METHOD,
    }
}

/// What a whole line is.
pub(super) fn line(line: &[u8]) -> Line<'_> {
    let line = trimmed(line);
    if !may_be_request(line) {
        return Line::Other;
    }
    request_line(line).unwrap_or_else(|| {
        let is_http = |word: &[u8]| word.to_ascii_uppercase().starts_with(b"HTTP/");
        let mut words = line.split(|byte| is_blank(*byte)).skip(1);
        match words.any(is_http) {
            true => Line::Odd,
            false => Line::Other,
        }
    })
}

/// What is between the first word and the last is the target, whatever it is.
fn request_line(line: &[u8]) -> Option<Line<'_>> {
    let first = line.iter().position(|byte| is_blank(*byte))?;
    let last = line.iter().rposition(|byte| is_blank(*byte))?;
    let method = str::from_utf8(line.get(..first)?).ok()?;
    let version = line.get(last + 1..)?;
    if let Some([minor]) = version.strip_prefix(b"HTTP/1.") {
        return minor.is_ascii_digit().then_some(Line::Request {
            method,
            target: trimmed(line.get(first..last)?),
            minor: minor.saturating_sub(b'0'),
        });
    }
    // HTTP/0.9 has no version; servers that take it read fields all the same.
    let target = trimmed(line.get(first..)?);
    let is_word = !target.iter().any(|byte| is_blank(*byte));
    let is_target = target.contains(&b'/') || target == b"*" || method == "CONNECT";
    (is_word && is_target && METHODS.contains(&method)).then_some(Line::Request {
        method,
        target,
        minor: 0,
    })
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !is_blank(*byte) && !byte.is_ascii_whitespace();
    let ends = bytes
        .iter()
        .position(is_text)
        .zip(bytes.iter().rposition(is_text));
    ends.and_then(|(start, end)| bytes.get(start..=end))
        .unwrap_or_default()
}

/// What servers part words at: some go by what is white space in Unicode's first
/// 256 characters.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0)
}

impl Head {
    /// Reads a head, or the whole lines of one that is cut short.
    pub(super) fn read(head: &[u8]) -> Option<Self> {
        let whole = |line: &[u8]| line.ends_with(b"\n");
        let mut lines = head
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| whole(line));
        let Line::Request {
            method,
            target,
            minor,
        } = line(lines.next()?)
        else {
            return None;
        };
        let mut fields = Fields::default();
        let (authority, path) = split_target(method, target);
        if let Some(authority) = authority {
            // An absolute target outranks the Host header (RFC 9112 section 3.2.2).
            fields.hosts.add(authority);
        }
        for line in lines {
            fields.line(line.trim_ascii_end());
        }
        let Hosts { names, ambiguous } = fields.hosts;
        Some(Self {
            facts: HttpFacts {
                method: text::escaped(method.as_bytes()),
                host: names.first().cloned(),
                path: redacted(path),
            },
            hosts: names,
            ambiguous,
            body: fields.framing.body(minor),
            switches: method == "CONNECT" || fields.upgrade,
        })
    }
}

/// What counts of a head's fields.
#[derive(Debug, Default)]
struct Fields {
    hosts: Hosts,
    framing: Framing,
    upgrade: bool,
    last: Field,
}

/// Which field the last line was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    Host,
    Framing,
    #[default]
    Other,
}

impl Fields {
    fn line(&mut self, line: &[u8]) {
        // Some servers take a carriage return alone for the end of a line.
        for (number, part) in line.split(|byte| *byte == b'\r').enumerate() {
            match part.first() {
                Some(first) if is_blank(*first) => self.folded(part.trim_ascii()),
                _ => self.field(part, number > 0),
            }
        }
    }

    /// A line that continues the one before (RFC 9112 section 5.2), or is one of
    /// its own for who does not know that.
    fn folded(&mut self, part: &[u8]) {
        match self.last {
            Field::Host => {
                self.hosts.ambiguous = true;
                self.hosts.add(part);
            }
            Field::Framing => self.framing.unclear = true,
            Field::Other => self.field(part, true),
        }
    }

    /// `odd` where not every server takes it for a field.
    fn field(&mut self, part: &[u8], odd: bool) {
        let Some(colon) = part.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = (part.get(..colon), part.get(colon + 1..));
        let (name, value) = (name.unwrap_or_default(), value.unwrap_or_default());
        let odd = odd || name.last().is_some_and(u8::is_ascii_whitespace);
        let name = name.trim_ascii();
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        self.last = Field::Other;
        if is("host") {
            self.last = Field::Host;
            self.hosts.ambiguous |= odd;
            self.hosts.add(value);
        } else if is("content-length") {
            self.last = Field::Framing;
            self.framing.length(value.trim_ascii());
            self.framing.unclear |= odd;
        } else if is("transfer-encoding") {
            self.last = Field::Framing;
            self.framing.coding(value.trim_ascii());
            self.framing.unclear |= odd;
        } else if is("upgrade") {
            self.upgrade = true;
        }
    }
}

/// How the body's end is told.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    unclear: bool,
}

impl Framing {
    fn length(&mut self, value: &[u8]) {
        let digits = value.iter().all(u8::is_ascii_digit);
        let text = str::from_utf8(value).unwrap_or_default();
        let length = text.parse().ok().filter(|_| digits);
        self.unclear |= length.is_none() || self.length.is_some_and(|known| length != Some(known));
        self.length = length;
    }

    fn coding(&mut self, value: &[u8]) {
        let last = value.rsplit(|byte| *byte == b',').next();
        let is_chunked = last.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        self.unclear |= !is_chunked || self.chunked;
        self.chunked = true;
    }

    fn body(&self, minor: u8) -> Body {
        match (self.length, self.chunked) {
            _ if self.unclear => Body::Unclear,
            (length, false) => Body::Bytes(length.unwrap_or(0)),
            (None, true) if minor >= 1 => Body::Chunked,
            (_, true) => Body::Unclear,
        }
    }
}

/// Authority and path of a request target (RFC 9112 section 3.2).
fn split_target<'a>(method: &str, target: &'a [u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    if method == "CONNECT" {
        return (Some(target), &[]);
    }
    let scheme = target.iter().position(|byte| !byte.is_ascii_alphanumeric());
    let (scheme, rest) = target
        .split_at_checked(scheme.unwrap_or(0))
        .unwrap_or_default();
    let Some(rest) = rest.strip_prefix(b"://").filter(|_| !scheme.is_empty()) else {
        return (None, target);
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let (authority, path) = rest
        .split_at_checked(end.unwrap_or(rest.len()))
        .unwrap_or_default();
    let host = authority.rsplit(|byte| *byte == b'@').next();
    (Some(host.unwrap_or(authority)), path)
}

fn redacted(target: &[u8]) -> String {
    let query = target.iter().position(|byte| *byte == b'?');
    let path = target
        .get(..query.unwrap_or(target.len()))
        .unwrap_or(target);
    let mut shown = text::escaped_prefix(path, MAX_PATH);
    if query.is_some() {
        shown.push_str("?…");
    }
    shown
}
