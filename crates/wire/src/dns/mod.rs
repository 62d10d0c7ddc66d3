//! DNS: messages, and the join of answers to pending questions.

mod message;
mod pending;
mod stream;
mod svcb;
mod tunnelling;

pub(crate) use message::Message;
pub use pending::DnsTransaction;
pub(crate) use pending::{Asked, PendingQuestions, Sent};
pub(crate) use stream::{Streams, starts_with_question};
pub(crate) use tunnelling::Tunnelling;
