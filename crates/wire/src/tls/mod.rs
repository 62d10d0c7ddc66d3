//! TLS: what the clear part of a handshake says, and where it ends.

mod certificate;
mod der;
mod hello;
mod ja4;
mod walk;

pub use certificate::CertificateFacts;
pub(crate) use certificate::certificate;
#[cfg(test)]
pub(crate) use certificate::tests::{certificate_records, der_of};
pub(crate) use hello::Negotiated;
pub use hello::TlsFacts;
pub(crate) use ja4::Transport;
pub(crate) use walk::{ClientWalk, is_alert, server_hello, starts_like_tls};
