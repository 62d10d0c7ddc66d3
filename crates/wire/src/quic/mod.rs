//! QUIC: the ClientHello in a client's Initial packets.
//!
//! Initial packets are encrypted with keys that everybody can make from the
//! client's first destination connection id, so the hello is as readable as
//! over TCP. Versions 1 and 2 and draft 29 are read.

mod packet;

pub(crate) use packet::starts_like_quic;

use crate::reader::Reader;
use crate::reassembly::Assembler;
use crate::tls::{TlsFacts, Transport};
use packet::initials;
use rustls::quic::DirectionalKeys;

/// Reads one conversation's Initial packets, bounded in memory and in work.
pub(crate) struct QuicSniff {
    /// Keys in use. A Retry makes the client take new ones.
    keys: Option<DirectionalKeys>,
    crypto: Assembler,
    opened: u32,
    hello: bool,
    first: Option<TlsFacts>,
    sni_changed: bool,
}

/// Initial packets of a conversation that are opened; a client sends a handful.
const MAX_PACKETS: u32 = 64;
/// Bytes of handshake that are read.
const MAX_CRYPTO: usize = 16 * 1024;
const CLIENT_HELLO: u8 = 1;

impl QuicSniff {
    pub(crate) const fn new() -> Self {
        Self {
            keys: None,
            crypto: Assembler::new(MAX_CRYPTO),
            opened: 0,
            hello: false,
            first: None,
            sni_changed: false,
        }
    }

    /// Takes in a datagram of the client.
    pub(crate) fn client(&mut self, datagram: &[u8]) {
        for initial in initials(datagram) {
            if self.is_over() {
                return;
            }
            self.opened += 1;
            let crypto = &mut self.crypto;
            let mut insert = |offset, bytes: &[u8]| {
                crypto.insert(
                    offset,
                    bytes,
                    u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                );
            };
            let known = self.keys.as_ref();
            if known
                .and_then(|keys| initial.open(keys, &mut insert))
                .is_none()
            {
                // The first packet, the first after a Retry, or another connection.
                let Some(keys) = initial.keys() else { return };
                let mut fresh = Assembler::new(MAX_CRYPTO);
                let opened = initial.open(&keys, &mut |offset, bytes| {
                    fresh.insert(
                        offset,
                        bytes,
                        u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                    );
                });
                if opened.is_none() {
                    continue;
                }
                self.keys = Some(keys);
                self.crypto = fresh;
                self.hello = false;
            }
            self.read(initial.version_name());
        }
    }

    /// What the first ClientHello says.
    pub(crate) const fn hello(&self) -> Option<&TlsFacts> {
        self.first.as_ref()
    }

    /// Whether a later ClientHello names another server.
    pub(crate) const fn sni_changed(&self) -> bool {
        self.sni_changed
    }

    /// Whether the same part of the handshake was sent with different bytes.
    pub(crate) const fn is_inconsistent(&self) -> bool {
        self.crypto.is_inconsistent()
    }

    /// Whether no more packets are opened.
    pub(crate) const fn is_over(&self) -> bool {
        self.opened >= MAX_PACKETS
    }

    /// Bytes of memory in use.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.crypto.footprint()
    }

    fn read(&mut self, version: &'static str) {
        if self.hello {
            return;
        }
        let mut reader = Reader::new(self.crypto.data());
        let (Some(kind), Some(len)) = (reader.u8(), reader.u24()) else {
            return;
        };
        let body = usize::try_from(len).ok().and_then(|len| reader.take(len));
        let (CLIENT_HELLO, Some(body)) = (kind, body) else {
            return;
        };
        self.hello = true;
        let facts = TlsFacts::client_hello(body, Transport::Quic).map(|facts| TlsFacts {
            quic_version: Some(version),
            ..facts
        });
        if let (Some(first), Some(facts)) = (&self.first, &facts) {
            self.sni_changed |= first.sni != facts.sni;
        }
        self.first = self.first.take().or(facts);
    }
}

impl std::fmt::Debug for QuicSniff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicSniff")
            .field("opened", &self.opened)
            .field("hello", &self.first)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
