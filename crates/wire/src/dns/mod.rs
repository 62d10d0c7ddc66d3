//! DNS: messages, and the join of answers to pending questions.

mod message;
mod pending;

pub(crate) use message::Message;
pub use pending::DnsTransaction;
pub(crate) use pending::{Asked, PendingQuestions};
