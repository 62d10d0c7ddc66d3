//! The kernel interfaces of Sandtrace: the only crate with unsafe code.
//!
//! Each module wraps one interface into a safe type that owns what it
//! opened. Nothing here interprets what it reads.

pub mod clock;
pub mod netdev;
pub mod netns;
pub mod process;
pub mod ring;
pub mod tap;
pub mod tsc;
pub mod unshare;
