//! One request to a VMM's API.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::await_socket;

/// Sends a body and waits for 200 or 204.
pub(super) fn send(method: &str, socket: &Path, path: &str, body: &Value) -> io::Result<()> {
    let mut stream = await_socket(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    // An answer that says no brings its reason in the same segment.
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend(chunk.iter().take(n)),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer.starts_with("HTTP/1.1 204") || answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(io::Error::other(answer))
    }
}
