//! What tests build: frames, conversations, TLS records, and a sink that records.

pub(crate) mod lab;
pub(crate) mod talk;
pub(crate) mod tls;
