//! What the lab on the host and the guest program inside a sandbox tell each other.
//!
//! The host hands the guest a [`Script`] before it starts; the guest answers with one
//! [`Message`] per line on its console. Both are JSON, so that a person can read the exchange.

pub mod agent;
mod message;
mod script;

pub use message::{MAX_LINE, Message, Report};
pub use script::{Network, Scenario, Script};
