//! TLS: what the clear part of a handshake says.

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
}
