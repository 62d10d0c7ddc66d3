//! Names of addresses, as evidence.

use std::net::IpAddr;
use std::sync::Arc;

/// Who claims that an address has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameSource {
    /// A DNS answer that arrived at the sandbox and matched its question.
    Dns,
    /// The server name in a TLS ClientHello: the client's claim.
    TlsSni,
    /// The Host header of an HTTP/1 request: the client's claim.
    HttpHost,
}

/// One claim that a flow's peer bears a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEvidence {
    /// The name in lower case without a trailing dot.
    pub name: Arc<str>,
    /// Who claims it.
    pub source: NameSource,
    /// A client's claim: an accepted resolver answered this very name with this
    /// very address. A DNS entry: its resolver is accepted and the client
    /// claims the same name.
    pub agrees: bool,
    /// The resolver that answered, for [`NameSource::Dns`].
    pub resolver: Option<IpAddr>,
    /// Whether that resolver is an accepted one, for [`NameSource::Dns`].
    pub resolver_accepted: Option<bool>,
    /// When it was seen, in nanoseconds since 1970-01-01T00:00:00Z.
    pub observed_wall_ns: u64,
}
