//! Connections on a sandbox's interface, or in a capture file.

mod collector;
mod convert;
mod file;
mod reconcile;
mod replay;

pub use collector::{Attached, NetworkCollector, NetworkError, NetworkTarget};
pub use file::FileError;
pub use replay::{Progress, Replay, ReplayConfig, first_moment};
