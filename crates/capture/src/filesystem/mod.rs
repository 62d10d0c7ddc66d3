//! What changed on a sandbox's disk, told by scans: an OverlayFS upper dir,
//! or an ext4 image that nobody mounts.
//!
//! A scan is the truth: it builds an index of paths and compares it with the
//! index of the scan before. Everything read is hostile: work is bounded by
//! [`FsConfig`], a path or link that the sandbox chose is never followed out
//! of its layer, and whatever could not be read or was not looked at becomes
//! a `capture_gap` record.

mod bounds;
mod collector;
mod config;
mod content;
mod diff;
mod disk;
mod ext4;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
mod layers;
mod mountinfo;
pub mod overlay;
mod record;
pub(crate) mod secrets;
#[cfg(test)]
mod testing;
mod tree;
mod wake;

pub use collector::{FsCollector, ScanSummary};
pub use config::{Baseline, FsConfig, FsError, ImageFormat, OverlayXattrs, Source};
pub use wake::{Wake, Wakeups};
