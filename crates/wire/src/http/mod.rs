//! HTTP/1: the heads of a connection's requests (RFC 9112).

mod authority;
mod head;
mod requests;

pub(crate) use head::Head;
pub(crate) use requests::{Progress, Requests};

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
