//! ClientHello and ServerHello (RFC 8446 section 4.1, RFC 5246 section 7.4.1).

use super::ja4::{Fingerprint, Transport};
use crate::findings::{Finding, Findings};
use crate::reader::Reader;
use crate::text;

/// What a ClientHello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// Server name (RFC 6066 section 3) in lower case without a trailing dot.
    pub sni: Option<String>,
    /// Protocols offered in ALPN (RFC 7301), in their order.
    pub alpn: Vec<String>,
    /// An encrypted_client_hello extension is present (RFC 9849); as clients
    /// send a fake one for grease, that alone proves nothing.
    pub ech: bool,
    /// Highest version offered: `1.3`, `1.2`, ….
    pub version_offered: Option<&'static str>,
    /// The version that the server chose, once it has.
    pub version: Option<&'static str>,
    /// The version of QUIC that carries it: `1`, `2`, `draft-29`.
    pub quic_version: Option<&'static str>,
    /// JA4 fingerprint of the client; absent where the hello is broken.
    pub ja4: Option<String>,
    /// Other server names in the same hello, which should have one.
    pub other_names: Vec<String>,
}

/// What a ServerHello chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) tls13: bool,
    /// That of the extension for it or, where there is none, of the hello's own
    /// field, which TLS 1.3 leaves at that of 1.2.
    version: u16,
    pub(crate) cipher_suite: u16,
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

const EXT_SERVER_NAME: u16 = 0;
const EXT_SIGNATURE_ALGORITHMS: u16 = 13;
const EXT_ALPN: u16 = 16;
const EXT_SUPPORTED_VERSIONS: u16 = 43;
const EXT_ECH: u16 = 0xfe0d;

/// Server names beyond the first that are kept.
const MAX_OTHER_NAMES: usize = 8;
/// ALPN entries that are kept; clients offer two or three.
const MAX_ALPN: usize = 16;
/// Bytes that are kept of each; registered ones have at most 20.
const MAX_ALPN_SHOWN: usize = 32;

impl TlsFacts {
    /// Reads the body of a ClientHello message.
    pub(crate) fn client_hello(body: &[u8], transport: Transport) -> Option<Self> {
        let mut reader = Reader::new(body);
        let legacy_version = reader.u16()?;
        reader.take(32)?;
        reader.vec8()?;
        let mut suites = reader.vec16()?;
        reader.vec8()?;
        let mut print = Fingerprint::default();
        while let Some(suite) = suites.u16() {
            print.cipher(suite);
        }
        let mut facts = Self {
            version_offered: version_name(legacy_version),
            ..Self::default()
        };
        if reader.is_empty() {
            // TLS 1.2 and before may have no extensions at all.
            facts.ja4 = Some(print.finish(transport, legacy_version));
            return Some(facts);
        }
        let mut extensions = reader.vec16()?;
        while !extensions.is_empty() {
            let (Some(kind), Some(data)) = (extensions.u16(), extensions.vec16()) else {
                // What stands before still says whom the client wants.
                return Some(facts);
            };
            // A broken extension says nothing; the others still do.
            print.extension(kind);
            let _ = facts.extension(kind, data, &mut print);
        }
        facts.ja4 = Some(print.finish(transport, legacy_version));
        Some(facts)
    }

    /// Every server name in it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.sni.iter().chain(&self.other_names).map(String::as_str)
    }

    /// What is odd about it.
    pub(crate) fn findings(&self) -> Findings {
        [
            (!self.other_names.is_empty(), Finding::SniChanged),
            // Only of a broken one is there no fingerprint.
            (self.ja4.is_none(), Finding::StartUnread),
        ]
        .into_iter()
        .filter_map(|(is, finding)| is.then_some(finding))
        .collect()
    }

    fn name(&mut self, name: String) {
        match &self.sni {
            None => self.sni = Some(name),
            Some(first) if *first == name => {}
            Some(_) if self.other_names.len() < MAX_OTHER_NAMES => self.other_names.push(name),
            Some(_) => {}
        }
    }

    fn extension(
        &mut self,
        kind: u16,
        mut data: Reader<'_>,
        print: &mut Fingerprint,
    ) -> Option<()> {
        match kind {
            EXT_SERVER_NAME => {
                let mut names = data.vec16()?;
                while !names.is_empty() {
                    let kind = names.u8()?;
                    let name = names.vec16()?;
                    if kind == 0 && !name.is_empty() {
                        self.name(text::host_name(name.rest()));
                    }
                }
            }
            EXT_ALPN => {
                let mut protocols = data.vec16()?;
                while !protocols.is_empty() && self.alpn.len() < MAX_ALPN {
                    let protocol = protocols.vec8()?;
                    print.alpn(protocol.rest());
                    self.alpn
                        .push(text::escaped_prefix(protocol.rest(), MAX_ALPN_SHOWN));
                }
            }
            EXT_SUPPORTED_VERSIONS => {
                let mut versions = data.vec8()?;
                let mut highest = None;
                while let Some(version) = versions.u16() {
                    print.supported_version(version);
                    // Known versions only: grease values are higher than all of them.
                    highest = highest.max(version_name(version).map(|_| version));
                }
                if let Some(version) = highest {
                    self.version_offered = version_name(version);
                }
            }
            EXT_SIGNATURE_ALGORITHMS => {
                let mut schemes = data.vec16()?;
                while let Some(scheme) = schemes.u16() {
                    print.signature_algorithm(scheme);
                }
            }
            EXT_ECH => self.ech = true,
            _ => {}
        }
        Some(())
    }
}

impl Negotiated {
    /// Reads the body of a ServerHello message; a HelloRetryRequest is one too.
    pub(crate) fn server_hello(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let mut version = reader.u16()?;
        reader.take(32)?;
        reader.vec8()?;
        let cipher_suite = reader.u16()?;
        reader.u8()?;
        let mut tls13 = false;
        if let Some(mut extensions) = reader.vec16() {
            while let (Some(kind), Some(mut data)) = (extensions.u16(), extensions.vec16()) {
                if kind == EXT_SUPPORTED_VERSIONS
                    && let Some(chosen) = data.u16()
                {
                    version = chosen;
                    tls13 = is_tls13(chosen);
                }
            }
        }
        Some(Self {
            tls13,
            version,
            cipher_suite,
        })
    }

    /// What an outcome with these would say.
    #[cfg(test)]
    pub(crate) const fn of(cipher_suite: u16, tls13: bool) -> Self {
        Self {
            tls13,
            version: if tls13 { 0x0304 } else { 0x0303 },
            cipher_suite,
        }
    }

    /// The version's name, where it is known.
    pub(crate) const fn version(self) -> Option<&'static str> {
        if self.tls13 {
            return version_name(0x0304);
        }
        version_name(self.version)
    }

    /// Length of the TLS 1.3 record that holds a Finished message and nothing
    /// else: header 4, hash, content type 1, authentication tag.
    pub(crate) const fn finished_record(self) -> u32 {
        match self.cipher_suite {
            // TLS_AES_256_GCM_SHA384
            0x1302 => 4 + 48 + 1 + 16,
            // TLS_AES_128_CCM_8_SHA256
            0x1305 => 4 + 32 + 1 + 8,
            _ => 4 + 32 + 1 + 16,
        }
    }
}

/// TLS 1.3, and its drafts as their implementers numbered them.
const fn is_tls13(version: u16) -> bool {
    version == 0x0304 || version >> 8 == 0x7f
}

const fn version_name(version: u16) -> Option<&'static str> {
    Some(match version {
        0x0300 => "SSL 3.0",
        0x0301 => "1.0",
        0x0302 => "1.1",
        0x0303 => "1.2",
        0x0304 => "1.3",
        _ => return None,
    })
}

/// Joins the handshake messages of one direction over its records, as far as
/// they are hellos; all others are passed over.
#[derive(Debug, Default)]
pub(crate) struct HandshakeMessages {
    /// The header of a message and, of a hello, its body.
    buffer: Vec<u8>,
    /// Bytes of a message that is passed over.
    skip: usize,
}

/// A hello of more bytes is none.
const MAX_HELLO: usize = 48 * 1024;
const HEADER: usize = 4;

/// A complete hello.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    Client(Option<TlsFacts>),
    Server(Option<Negotiated>),
}

impl HandshakeMessages {
    /// Takes in the body of a handshake record, whole or in pieces; gives each
    /// hello that it completes to `found`.
    pub(crate) fn push(&mut self, bytes: &[u8], found: &mut dyn FnMut(Hello)) {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            if self.skip > 0 {
                self.skip -= reader.up_to(self.skip).len();
            } else {
                let missing = self.wanted().saturating_sub(self.buffer.len());
                self.buffer.extend_from_slice(reader.up_to(missing));
                self.complete(found);
            }
        }
    }

    /// Bytes of memory in use.
    pub(crate) fn footprint(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes of the current message that are kept.
    fn wanted(&self) -> usize {
        let mut reader = Reader::new(&self.buffer);
        match (reader.u8(), reader.u24()) {
            (Some(_), Some(len)) => HEADER + usize::try_from(len).unwrap_or(usize::MAX),
            _ => HEADER,
        }
    }

    fn complete(&mut self, found: &mut dyn FnMut(Hello)) {
        let mut reader = Reader::new(&self.buffer);
        let (Some(kind), Some(len)) = (reader.u8(), reader.u24()) else {
            return;
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !matches!(kind, CLIENT_HELLO | SERVER_HELLO) || len > MAX_HELLO {
            self.skip = len;
            self.buffer.clear();
            return;
        }
        let Some(body) = reader.take(len) else {
            return;
        };
        found(match kind {
            CLIENT_HELLO => Hello::Client(TlsFacts::client_hello(body, Transport::Tcp)),
            _ => Hello::Server(Negotiated::server_hello(body)),
        });
        self.buffer = Vec::new();
    }
}
