//! HTTP/1: the head of a connection's first request.

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
