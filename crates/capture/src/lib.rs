//! Collectors that turn kernel bytes into events.
//!
//! A collector reads through `sys`, understands through `wire` or its own
//! differ, and hands each [`Observation`] to an [`Observer`]. It never judges
//! and never writes.

pub mod filesystem;
pub mod network;
#[cfg(test)]
mod published;
pub mod syscall;

use sandtrace_event::{Limits, Observation};

/// Where a collector reports to.
pub trait Observer {
    /// Takes an observation and answers what bounds its subject from now on.
    fn observe(&mut self, observation: Observation) -> Limits;

    /// How many observations it can take now without making the collector wait.
    fn room(&self) -> usize {
        usize::MAX
    }
}
