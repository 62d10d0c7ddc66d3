//! Connections on a sandbox's interface, or in a capture file.

mod before;
mod clocks;
mod collector;
mod convert;
mod counted;
mod evidence;
mod extract;
mod file;
mod file_clock;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hosts;
mod hub;
mod pcapng;
mod reconcile;
mod replay;
mod source;
mod standing;

pub use collector::{Attached, NetworkCollector, NetworkError, NetworkTarget};
pub use evidence::EvidenceConfig;
pub use extract::{ExtractError, Search, Selection};
pub use file::{FileError, FileFrame, FrameReader};
pub use file_clock::FileClock;
pub use hub::{Counts, Heard, Kept, NetworkHub, NetworkHubReader};
pub use pcapng::{EvidenceFrame, PcapNgWriter};
pub use replay::{Progress, Replay, ReplayConfig, first_moment};
pub use source::{Backend, BackendChosen};
