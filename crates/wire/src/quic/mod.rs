//! QUIC: the ClientHello in a client's Initial packets.
//!
//! Initial packets are encrypted with keys that everybody can make from the
//! client's first destination connection id, so the hello is as readable as
//! over TCP. Versions 1 and 2 and the last drafts are read.

mod packet;

pub(crate) use packet::{starts_like_quic, unread_version};

use crate::reader::Reader;
use crate::reassembly::Assembler;
use crate::tls::{TlsFacts, Transport};
use packet::{Initial, initials};
use rustls::quic::DirectionalKeys;

/// Reads one conversation's Initial packets, bounded in memory, and in work for
/// each datagram.
pub(crate) struct QuicSniff {
    /// The latest, the newest last.
    connections: Vec<Connection>,
    /// There were more.
    forgot: bool,
    first: Option<TlsFacts>,
    /// Names that hellos had since they were last taken.
    names: Vec<String>,
    sni_changed: bool,
    inconsistent: bool,
    unread: bool,
}

/// The client's side of one handshake.
struct Connection {
    /// Keys in use. A Retry makes the client take new ones.
    keys: DirectionalKeys,
    crypto: Assembler,
    /// Bytes of it that were read as messages.
    walked: usize,
    /// More was sent than is read.
    unread: bool,
}

/// Connections that are read further: the one before a Retry and after it, and those
/// that begin from the same port.
const MAX_CONNECTIONS: usize = 3;
/// Connections that may begin in one datagram, as making keys is what costs; a
/// client has one.
const MAX_BEGINNINGS: u32 = 3;
/// Bytes of handshake that are read.
const MAX_CRYPTO: usize = 16 * 1024;
const CLIENT_HELLO: u8 = 1;

impl QuicSniff {
    pub(crate) const fn new() -> Self {
        Self {
            connections: Vec::new(),
            forgot: false,
            first: None,
            names: Vec::new(),
            sni_changed: false,
            inconsistent: false,
            unread: false,
        }
    }

    /// Takes in a datagram of the client.
    pub(crate) fn client(&mut self, datagram: &[u8]) {
        let mut beginnings = 0;
        // What may begin with the packets of this connection id.
        let mut other: Option<(Initial<'_>, Connection)> = None;
        for initial in initials(datagram) {
            let mut known = self.connections.iter_mut();
            if let Some(at) = known.position(|known| known.open(&initial)) {
                self.read(at, initial.version_name());
                continue;
            }
            // The first packet, the first after a Retry, or another connection.
            if !matches!(&other, Some((of, _)) if of.begins_as(&initial)) {
                if beginnings == MAX_BEGINNINGS {
                    self.unread = true;
                    return;
                }
                beginnings += 1;
                other = Connection::of(&initial).map(|it| (initial, it));
            }
            if other.as_mut().is_some_and(|(_, it)| it.open(&initial)) {
                if self.connections.len() == MAX_CONNECTIONS {
                    self.connections.remove(0);
                    self.forgot = true;
                }
                let at = self.connections.len();
                self.connections.extend(other.take().map(|(_, it)| it));
                self.read(at, initial.version_name());
            } else {
                // It may be of a connection whose keys are gone.
                self.unread |= self.forgot;
            }
        }
    }

    /// What the first ClientHello says.
    pub(crate) const fn hello(&self) -> Option<&TlsFacts> {
        self.first.as_ref()
    }

    /// The names in hellos that were read since this was last asked, at most as many
    /// as stand in the bytes that are read.
    pub(crate) fn take_names(&mut self) -> Vec<String> {
        std::mem::take(&mut self.names)
    }

    /// Whether a later ClientHello names another server.
    pub(crate) const fn sni_changed(&self) -> bool {
        self.sni_changed
    }

    /// Whether the same part of a handshake was sent with different bytes.
    pub(crate) const fn is_inconsistent(&self) -> bool {
        self.inconsistent
    }

    /// Whether a hello may have been sent where none was read.
    pub(crate) const fn is_unread(&self) -> bool {
        self.unread
    }

    /// Bytes of memory in use.
    pub(crate) fn footprint(&self) -> usize {
        let of = |it: &Connection| size_of::<Connection>() + it.crypto.footprint();
        size_of::<Self>() + self.connections.iter().map(of).sum::<usize>()
    }

    /// Reads what a connection has of messages.
    fn read(&mut self, at: usize, version: &'static str) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        while let Some(facts) = connection.next_hello() {
            let facts = TlsFacts {
                quic_version: Some(version),
                ..facts
            };
            self.names.extend(facts.names().map(ToOwned::to_owned));
            if let Some(first) = &self.first {
                self.sni_changed |= first.sni != facts.sni;
            }
            self.first = self.first.take().or(Some(facts));
        }
        // Another connection does not undo it.
        self.inconsistent |= connection.crypto.is_inconsistent();
        self.unread |= connection.unread;
    }
}

impl Connection {
    /// The one that begins with this packet, if it opens.
    fn of(initial: &Initial<'_>) -> Option<Self> {
        Some(Self {
            keys: initial.keys()?,
            crypto: Assembler::new(MAX_CRYPTO),
            walked: 0,
            unread: false,
        })
    }

    /// Takes in a packet; whether it is one of this connection.
    fn open(&mut self, initial: &Initial<'_>) -> bool {
        let (crypto, unread) = (&mut self.crypto, &mut self.unread);
        let mut insert = |offset: u64, bytes: &[u8]| {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            crypto.insert(offset, bytes, len);
            let end =
                usize::try_from(offset).map_or(usize::MAX, |it| it.saturating_add(bytes.len()));
            *unread |= end > MAX_CRYPTO;
        };
        let Some(is_whole) = initial.open(&self.keys, &mut insert) else {
            return false;
        };
        self.unread |= !is_whole || self.crypto.is_over();
        true
    }

    /// The next whole ClientHello: the first, or the second after the server
    /// asked for another one. A client sends no other messages in the open.
    fn next_hello(&mut self) -> Option<TlsFacts> {
        let mut reader = Reader::new(self.crypto.data().get(self.walked..)?);
        let (kind, len) = (reader.u8()?, reader.u24()?);
        let body = reader.take(usize::try_from(len).ok()?)?;
        self.walked = self.crypto.data().len() - reader.rest().len();
        let facts = (kind == CLIENT_HELLO)
            .then(|| TlsFacts::client_hello(body, Transport::Quic))
            .flatten();
        self.unread |= facts.is_none();
        facts
    }
}

impl std::fmt::Debug for QuicSniff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicSniff")
            .field("hello", &self.first)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
