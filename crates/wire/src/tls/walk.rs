//! Walks the records of a TLS connection (RFC 8446 section 5.1) to where its
//! application data starts.

use super::hello::{HandshakeMessages, Hello, Negotiated, TlsFacts};
use crate::findings::{Finding, Findings};
use crate::reader::Reader;

/// The client's records up to its application data.
///
/// In TLS 1.2 and before, application data starts at the first record of type
/// 23. In TLS 1.3 the client's Finished is in such a record itself, so the
/// first one belongs to the handshake if it has exactly a Finished message's
/// length. Whatever cannot be told is application data: a handshake may be
/// counted as a call, a call never as a handshake.
#[derive(Debug, Default)]
pub(crate) struct ClientWalk {
    header: [u8; HEADER],
    header_len: usize,
    /// Bytes left of the current record.
    left: u32,
    in_handshake_record: bool,
    finished: bool,
    done: bool,
    messages: HandshakeMessages,
    hellos: u32,
    first: Option<TlsFacts>,
    /// Server names of hellos that nobody took yet.
    names: Vec<String>,
    findings: Findings,
}

const HEADER: usize = 5;
/// Largest record body: plaintext and what encryption may add (RFC 5246 section 6.2.3).
const MAX_RECORD: u32 = (1 << 14) + 2048;
/// An alert is two bytes, and what encryption adds to them.
const MAX_ALERT: u32 = 64;
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Whether a stream starts with a TLS handshake record; `None` while too short to
/// tell. Servers take any minor version there.
pub(crate) fn starts_like_tls(stream: &[u8]) -> Option<bool> {
    let pattern: [fn(u8) -> bool; 3] = [|b| b == HANDSHAKE, |b| b == 3, |_| true];
    if stream.iter().zip(pattern).any(|(byte, fits)| !fits(*byte)) {
        return Some(false);
    }
    (stream.len() >= pattern.len()).then_some(true)
}

/// Whether a segment is exactly one record that may hold an alert: of type 21,
/// or in TLS 1.3 of type 23 and with the length of an encrypted alert.
pub(crate) fn is_alert(segment: &[u8], len: u32) -> bool {
    let mut reader = Reader::new(segment);
    let (Some(kind), Some(version), Some(body)) = (reader.u8(), reader.u16(), reader.u16()) else {
        return false;
    };
    version >> 8 == 3
        && u32::from(body) + 5 == len
        && match kind {
            ALERT => u32::from(body) <= MAX_ALERT,
            // Level, description, content type and a tag of 16 or 8 bytes.
            APPLICATION_DATA => body == 19 || body == 11,
            _ => false,
        }
}

impl ClientWalk {
    /// Takes in the next bytes of the stream. `server` is what the server has
    /// chosen, once known. Answers how many bytes turned out to be handshake;
    /// all others are application data once the walk is done.
    pub(crate) fn feed(&mut self, bytes: &[u8], server: Option<Negotiated>) -> u64 {
        let mut handshake = 0;
        let mut reader = Reader::new(bytes);
        while !self.done && !reader.is_empty() {
            if self.left > 0 {
                let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
                let body = reader.up_to(wanted);
                handshake += length(body);
                self.body(body);
            } else {
                let (_, wanted) = self.header.split_at_mut(self.header_len);
                let part = reader.up_to(wanted.len());
                for (to, from) in wanted.iter_mut().zip(part) {
                    *to = *from;
                }
                self.header_len += part.len();
                if self.header_len == HEADER {
                    self.header_len = 0;
                    if self.next_record(server) {
                        handshake += length(&self.header);
                    } else {
                        self.done = true;
                    }
                }
            }
        }
        handshake
    }

    /// Gives up: what comes and what is not settled is application data.
    pub(crate) fn abandon(&mut self) {
        self.done = true;
    }

    /// Whether application data has started.
    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }

    /// Whether a ClientHello was read or can no longer come.
    pub(crate) const fn is_named(&self) -> bool {
        self.hellos > 0 || self.done
    }

    /// What the first ClientHello says.
    pub(crate) const fn hello(&self) -> Option<&TlsFacts> {
        self.first.as_ref()
    }

    /// The server names of all hellos since it was asked last.
    pub(crate) fn take_names(&mut self) -> Vec<String> {
        std::mem::take(&mut self.names)
    }

    /// What is odd about the hellos, such as that they name different servers.
    pub(crate) const fn findings(&self) -> Findings {
        self.findings
    }

    /// Bytes of memory in use beyond the walk itself.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.messages.footprint()
    }

    /// Takes a part of a record's body.
    fn body(&mut self, part: &[u8]) {
        self.left = self
            .left
            .saturating_sub(u32::try_from(part.len()).unwrap_or(u32::MAX));
        if !self.in_handshake_record {
            return;
        }
        let (names, findings) = (&mut self.names, &mut self.findings);
        let (first, hellos) = (&mut self.first, &mut self.hellos);
        self.messages.push(part, &mut |hello| {
            let Hello::Client(facts) = hello else { return };
            *hellos += 1;
            let Some(facts) = facts else {
                findings.insert(Finding::StartUnread);
                return;
            };
            names.extend(facts.names().map(ToOwned::to_owned));
            *findings = findings.union(facts.findings());
            match first {
                None => *first = Some(facts),
                Some(first) if first.sni != facts.sni => {
                    findings.insert(Finding::SniChanged);
                }
                Some(_) => {}
            }
        });
    }

    /// Whether the record whose header is complete belongs to the handshake.
    fn next_record(&mut self, server: Option<Negotiated>) -> bool {
        let mut reader = Reader::new(&self.header);
        let (Some(kind), Some(version), Some(len)) = (reader.u8(), reader.u16(), reader.u16())
        else {
            return false;
        };
        let len = u32::from(len);
        self.left = len;
        self.in_handshake_record = kind == HANDSHAKE;
        version >> 8 == 3
            && match kind {
                // Servers pass over empty ones before the hello.
                HANDSHAKE if len == 0 => self.hellos == 0,
                HANDSHAKE => !self.finished && len <= MAX_RECORD,
                CHANGE_CIPHER_SPEC => !self.finished && len == 1,
                ALERT => (1..=MAX_ALERT).contains(&len),
                APPLICATION_DATA => {
                    let is_finished = !self.finished
                        && server
                            .is_some_and(|server| server.tls13 && len == server.finished_record());
                    self.finished |= is_finished;
                    is_finished
                }
                _ => false,
            }
    }
}

/// What the server chose, from its first records; `None` while they are not
/// complete, `Some(None)` if there is no ServerHello.
pub(crate) fn server_hello(stream: &[u8]) -> Option<Option<Negotiated>> {
    let mut reader = Reader::new(stream);
    let mut messages = HandshakeMessages::default();
    let mut answer = None;
    while answer.is_none() {
        let kind = reader.u8()?;
        let (version, len) = (reader.u16()?, reader.u16()?);
        if kind != HANDSHAKE || version >> 8 != 3 {
            return Some(None);
        }
        let len = usize::from(len);
        let (body, whole) = match reader.take(len) {
            Some(body) => (body, true),
            None => (reader.rest(), false),
        };
        messages.push(body, &mut |hello| {
            if let Hello::Server(negotiated) = hello {
                answer.get_or_insert(negotiated);
            }
        });
        if answer.is_none() && !whole {
            return None;
        }
    }
    answer
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
