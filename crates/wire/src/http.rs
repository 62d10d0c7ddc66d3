//! HTTP/1: the head of a connection's first request (RFC 9112).

use crate::text;

/// What the first request of a connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFacts {
    /// Request method.
    pub method: String,
    /// Host the client names, in lower case without port.
    pub host: Option<String>,
    /// Request path with the query redacted to `?…`.
    pub path: String,
}

/// What is known about a stream that may be HTTP/1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// More bytes are needed.
    Incomplete,
    /// It is something else.
    Other,
    /// The head of a request.
    Request(HttpFacts),
}

/// Reads the head of a first request piece by piece, each byte once.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    /// How far the end of the head was looked for.
    searched: usize,
    line_checked: bool,
}

const MAX_METHOD: usize = 24;
const MAX_HEADERS: usize = 96;
const MAX_PATH: usize = 1024;

impl HeadReader {
    /// Looks at the stream from its first byte on; it is the same and longer each time.
    pub(crate) fn read(&mut self, stream: &[u8]) -> Reading {
        if !may_be_request(stream) {
            return Reading::Other;
        }
        let seen = self.searched.saturating_sub(3);
        let unseen = stream.get(seen..).unwrap_or_default();
        if !self.line_checked
            && let Some(newline) = unseen.iter().position(|byte| *byte == b'\n')
        {
            self.line_checked = true;
            let line = stream.get(..seen + newline).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !is_request_line(line) {
                return Reading::Other;
            }
        }
        self.searched = stream.len();
        if unseen.windows(4).any(|end| end == b"\r\n\r\n")
            || unseen.windows(2).any(|end| end == b"\n\n")
        {
            request(stream).map_or(Reading::Other, Reading::Request)
        } else {
            Reading::Incomplete
        }
    }

    /// Makes the best of a head that never ends.
    pub(crate) fn give_up(stream: &[u8]) -> Option<HttpFacts> {
        request(stream)
    }
}

/// Length of the head that a stream begins with, its empty line included.
pub(crate) fn head_len(stream: &[u8]) -> Option<usize> {
    let ends = [&b"\r\n\r\n"[..], b"\n\n"];
    ends.into_iter()
        .filter_map(|end| {
            let at = stream.windows(end.len()).position(|it| it == end)?;
            Some(at + end.len())
        })
        .min()
}

/// A method and a space, or a beginning of that (RFC 9110 section 5.6.2).
fn may_be_request(stream: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match stream.iter().position(|byte| !is_token(byte)) {
        Some(end) => (1..=MAX_METHOD).contains(&end) && stream.get(end) == Some(&b' '),
        None => stream.len() <= MAX_METHOD,
    }
}

fn is_request_line(line: &[u8]) -> bool {
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

fn request(stream: &[u8]) -> Option<HttpFacts> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    // A head with too many headers or an odd one is still a request: whatever
    // was parsed before the trouble counts.
    let _ = request.parse(stream);
    let (method, target) = (request.method?, request.path?);
    let named = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("host"))
        .map(|header| header.value);
    let (authority, path) = split_target(method, target);
    // An absolute target outranks the Host header (RFC 9112 section 3.2.2).
    let host = authority
        .map(str::as_bytes)
        .or(named)
        .map(without_port)
        .map(text::host_name)
        .filter(|host| !host.is_empty());
    Some(HttpFacts {
        method: text::escaped(method.as_bytes()),
        host,
        path: redacted(path),
    })
}

/// Authority and path of a request target (RFC 9112 section 3.2).
fn split_target<'a>(method: &str, target: &'a str) -> (Option<&'a str>, &'a str) {
    if method == "CONNECT" {
        return (Some(target), "");
    }
    match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(at);
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            (Some(host), path)
        }
        _ => (None, target),
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    let authority = authority.trim_ascii();
    if let Some(inner) = authority.strip_prefix(b"[") {
        return inner.split(|byte| *byte == b']').next().unwrap_or(inner);
    }
    authority
        .split(|byte| *byte == b':')
        .next()
        .unwrap_or(authority)
}

fn redacted(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, _)) => (path, "?…"),
        None => (target, ""),
    };
    let path = path.as_bytes();
    match path.get(..MAX_PATH) {
        Some(start) => format!("{}…{query}", text::escaped(start)),
        None => format!("{}{query}", text::escaped(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(method: &str, host: Option<&str>, path: &str) -> Reading {
        Reading::Request(HttpFacts {
            method: method.to_owned(),
            host: host.map(ToOwned::to_owned),
            path: path.to_owned(),
        })
    }

    #[track_caller]
    fn check(stream: &str, expected: &Reading) {
        assert_eq!(&HeadReader::default().read(stream.as_bytes()), expected);
    }

    #[test]
    fn heads_are_read() {
        check(
            "GET / HTTP/1.1\r\nHost: A.Example.:80\r\n\r\n",
            &facts("GET", Some("a.example"), "/"),
        );
        check(
            "POST /x?key=1 HTTP/1.1\nhost: b\n\n",
            &facts("POST", Some("b"), "/x?…"),
        );
        check(
            "GET http://u:p@c:8080/y?z HTTP/1.1\r\nHost: d\r\n\r\n",
            &facts("GET", Some("c"), "/y?…"),
        );
        check(
            "CONNECT e.example:443 HTTP/1.1\r\n\r\n",
            &facts("CONNECT", Some("e.example"), ""),
        );
        check("GET / HTTP/1.0\r\n\r\n", &facts("GET", None, "/"));
        check(
            "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
            &facts("GET", Some("2001:db8::1"), "/"),
        );
    }

    #[test]
    fn other_protocols_are_ruled_out_early() {
        check("\x16\x03\x01", &Reading::Other);
        check("USER anonymous\r\n", &Reading::Other);
        check("SSH-2.0-OpenSSH_9.2\r\n", &Reading::Other);
        check(&"A".repeat(25), &Reading::Other);
        check("GE", &Reading::Incomplete);
        check("GET /", &Reading::Incomplete);
        check("GET / HTTP/1.1\r\nHost: x\r\n", &Reading::Incomplete);
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(cut in proptest::collection::vec(1_usize..60, 0..8)) {
            let stream = b"PUT /a/b?c HTTP/1.1\r\nAccept: */*\r\nHost: Split.example\r\n\r\nbody";
            let mut reader = HeadReader::default();
            let mut at = 0;
            let mut reading = Reading::Incomplete;
            for piece in cut.into_iter().chain([stream.len()]) {
                at = stream.len().min(at + piece);
                reading = reader.read(&stream[..at]);
                if reading != Reading::Incomplete {
                    break;
                }
            }
            prop_assert_eq!(reading, facts("PUT", Some("split.example"), "/a/b?…"));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut stream: Vec<u8>) {
            let _ = HeadReader::default().read(&stream);
            stream.splice(0..0, *b"GET /\r\n\r\n");
            let _ = HeadReader::give_up(&stream);
        }
    }
}
