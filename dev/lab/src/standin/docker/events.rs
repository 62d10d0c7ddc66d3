//! `GET /events`: an answer without an end, each event a line and a chunk.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Container, head, id_of};

/// A connection that hears events.
#[derive(Debug)]
pub(super) struct Listener {
    stream: UnixStream,
    /// Actions that it asked for; all where it named none.
    wanted: Option<Vec<String>>,
}

impl Listener {
    /// The head goes out at once, before there is an event.
    pub(super) fn begin(mut stream: UnixStream, query: &str) -> io::Result<Self> {
        let head = head("200 OK");
        write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
        let wanted = wanted(query);
        Ok(Self { stream, wanted })
    }

    /// False where nobody hears any more.
    pub(super) fn tell(&mut self, action: &str, event: &Value) -> bool {
        let mut wanted = self.wanted.iter().flatten();
        if self.wanted.is_some() && !wanted.any(|it| it == action) {
            return true;
        }
        let line = format!("{event}\n");
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        self.stream.write_all(chunk.as_bytes()).is_ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Whoever is gone misses nothing.
        let _ = self.stream.write_all(b"0\r\n\r\n");
    }
}

/// The member `event` of the query's filters.
fn wanted(query: &str) -> Option<Vec<String>> {
    let filters = decoded(query.strip_prefix("?filters=")?);
    let filters: Value = serde_json::from_str(&filters).ok()?;
    let events = filters.get("event")?.as_array()?.iter();
    Some(
        events
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect(),
    )
}

/// RFC 3986 section 2.1.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        let byte = u8::from_str_radix(digits, 16).unwrap_or(b'?');
        decoded.push(char::from(byte));
        decoded.push_str(rest);
    }
    decoded
}

pub(super) fn event(action: &str, container: &Container) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let (id, image) = (id_of(container), "daytonaio/sandbox:0.5.0");
    let mut attributes = super::labels(container);
    attributes.insert("image".to_owned(), image.into());
    attributes.insert("name".to_owned(), container.name.as_str().into());
    json!({
        "status": action, "id": id, "from": image, "Type": "container", "Action": action,
        "Actor": {"ID": id, "Attributes": attributes}, "scope": "local", "time": now.as_secs(),
        "timeNano": u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
    })
}
