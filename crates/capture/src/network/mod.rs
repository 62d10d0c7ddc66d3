//! Connections on a sandbox's interface.

mod collector;
mod convert;
mod reconcile;

pub use collector::{Attached, NetworkCollector, NetworkError, NetworkTarget};
