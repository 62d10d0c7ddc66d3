//! The HTTP server of Firecracker's `micro_http`, as far as a client can
//! tell: no reason phrase, connections kept alive, ten of them at most.

use serde::Serialize;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections at the same time (`MAX_CONNECTIONS` of micro_http).
const MAX_CONNECTIONS: usize = 10;

/// What one more connection gets (`SERVER_FULL_ERROR_MESSAGE`).
const FULL: &[u8] = b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n\
    Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }";

/// Longest request (`HTTP_MAX_PAYLOAD_SIZE`).
const MAX_REQUEST: usize = 51_200;

/// How questions are answered; orders always are as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    Good,
    /// After [`SLOW`].
    Slow,
    /// Byte by byte, with [`DRIP`] between them.
    Drip,
    /// With anything else.
    Garbage,
    /// Never, on a connection that stays.
    Silent,
}

const SLOW: Duration = Duration::from_millis(400);

const DRIP: Duration = Duration::from_millis(50);

impl Manners {
    /// By `standin.api=` in the guest's boot arguments.
    pub(super) fn of(boot_args: &str) -> Self {
        let mut words = boot_args.split_whitespace();
        match words.find_map(|word| word.strip_prefix("standin.api=")) {
            Some("slow") => Self::Slow,
            Some("drip") => Self::Drip,
            Some("garbage") => Self::Garbage,
            Some("silent") => Self::Silent,
            _ => Self::Good,
        }
    }

    fn send(self, stream: &mut UnixStream, answer: &Answer, server: &str) -> io::Result<()> {
        match self {
            Self::Good => stream.write_all(&answer.bytes(server)),
            Self::Slow => {
                std::thread::sleep(SLOW);
                stream.write_all(&answer.bytes(server))
            }
            Self::Drip => answer.bytes(server).iter().try_for_each(|byte| {
                std::thread::sleep(DRIP);
                stream.write_all(std::slice::from_ref(byte))
            }),
            Self::Garbage => {
                let body = Some("\u{1b}[31m{\"id\":[".to_owned());
                let garbage = Answer { status: 200, body };
                stream.write_all(&garbage.bytes(server))
            }
            Self::Silent => Ok(()),
        }
    }
}

/// What to answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// JSON as it is sent: the order of members counts.
    pub(super) body: Option<String>,
}

impl Answer {
    pub(super) fn json(body: &impl Serialize) -> Self {
        Self::with(200, body)
    }

    pub(super) fn with(status: u16, body: &impl Serialize) -> Self {
        match serde_json::to_string(body) {
            Ok(body) => Self {
                status,
                body: Some(body),
            },
            Err(error) => Self::fault(&error.to_string()),
        }
    }

    pub(super) fn done(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self {
                status: 204,
                body: None,
            },
            Err(why) => Self::fault(&why),
        }
    }

    pub(super) fn fault(why: &str) -> Self {
        Self {
            status: 400,
            body: Some(serde_json::json!({ "fault_message": why }).to_string()),
        }
    }

    pub(super) fn bytes(&self, server: &str) -> Vec<u8> {
        let mut text = format!(
            "HTTP/1.1 {} \r\nServer: {server}\r\nConnection: keep-alive\r\n",
            self.status
        );
        if let Some(body) = &self.body {
            let length = body.len();
            text += &format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        } else {
            text += "\r\n";
        }
        text.into_bytes()
    }
}

/// One request.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Value,
}

/// Serves for ever. `answer` is called on several threads.
pub(super) fn serve(
    listener: &UnixListener,
    server: &str,
    answer: impl Fn(&Request) -> (Answer, Manners) + Sync,
) {
    let open = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                // A client that is gone already needs no answer.
                let _ = stream.write_all(FULL);
                continue;
            }
            let (open, answer) = (&open, &answer);
            scope.spawn(move || {
                // Ends with the connection, in whichever way.
                let _ = converse(stream, server, answer);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

fn converse(
    mut stream: UnixStream,
    server: &str,
    answer: &impl Fn(&Request) -> (Answer, Manners),
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        if let Some((request, length)) = parse(&buffer) {
            buffer.drain(..length);
            let (answer, manners) = answer(&request);
            let is_order = request.method != "GET";
            let manners = if is_order { Manners::Good } else { manners };
            manners.send(&mut stream, &answer, server)?;
            continue;
        }
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk)?;
        if read == 0 || buffer.len() > MAX_REQUEST {
            return Ok(());
        }
        buffer.extend(chunk.iter().take(read));
    }
}

/// A whole request and its length, once it is there.
fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes).ok()? else {
        return None;
    };
    let length = head.headers.iter().find_map(|header| {
        let is_length = header.name.eq_ignore_ascii_case("content-length");
        let text = std::str::from_utf8(header.value).ok()?;
        is_length.then(|| text.trim().parse::<usize>().ok())?
    });
    let end = start.checked_add(length.unwrap_or(0))?;
    let body = bytes.get(start..end)?;
    let request = Request {
        method: head.method?.to_owned(),
        path: head.path?.to_owned(),
        body: serde_json::from_slice(body).unwrap_or(Value::Null),
    };
    Some((request, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_firecrackers_to_the_byte() {
        let info = json!({"id": "vm-001"});
        assert_eq!(
            Answer::json(&info).bytes("Firecracker API"),
            b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\
              Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"id\":\"vm-001\"}"
        );
        assert!(FULL.ends_with(b"connections\" }"));
    }

    #[test]
    fn requests_come_in_pieces() {
        let whole = b"PUT /mmds HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}GET";
        assert!(parse(&whole[..47]).is_none());
        let (request, length) = parse(whole).unwrap();
        assert_eq!((request.path.as_str(), length), ("/mmds", whole.len() - 3));
        assert_eq!(request.body, json!({"a": 1}));
    }

    const SERVER: &str = "Firecracker API";

    #[test]
    fn a_connection_takes_one_request_after_the_other() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let patience = Duration::from_secs(10);
        client.set_read_timeout(Some(patience)).unwrap();
        let told = |path: &str| Answer::json(&json!({ "path": path }));
        let served = std::thread::spawn(move || {
            let answer = |request: &Request| (told(&request.path), Manners::Good);
            converse(server, SERVER, &answer)
        });
        let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        // The third one before the second has its answer.
        for paths in [&["/one"][..], &["/two", "/three"]] {
            let asked: String = paths.iter().map(|path| request(path)).collect();
            client.write_all(asked.as_bytes()).unwrap();
            for path in paths {
                let expected = told(path).bytes(SERVER);
                let mut answer = vec![0; expected.len()];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(answer, expected, "{path}");
            }
        }
        drop(client);
        served.join().unwrap().unwrap();
    }

    /// No refusal and no answer without a body was recorded with its head.
    #[test]
    fn other_heads_follow_the_recorded_one() {
        const RAW: &str =
            include_str!("../../../../crates/provider/tests/fixtures/firecracker/raw_response.txt");
        let (head, body) = RAW.split_once("\r\n\r\n").unwrap();
        let length = |body: &str| format!("Content-Length: {}", body.len());
        let fault = Answer::fault("Invalid request method and/or path: GET network-interfaces.");
        let why = fault.body.clone().unwrap();
        let expected = head
            .replace(" 200 ", " 400 ")
            .replace(&length(body), &length(&why));
        let expected = format!("{expected}\r\n\r\n{why}");
        assert_eq!(fault.bytes(SERVER), expected.as_bytes());
        let lines = head.split("\r\n");
        let bare: Vec<_> = lines.filter(|line| !line.starts_with("Content-")).collect();
        let expected = bare.join("\r\n").replace(" 200 ", " 204 ") + "\r\n\r\n";
        assert_eq!(Answer::done(Ok(())).bytes(SERVER), expected.as_bytes());
    }
}
