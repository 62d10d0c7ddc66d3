//! Our replay beside the logs that Zeek's own tests expect of the same
//! captures. docs/conformance.md says how the two are mapped, and why.

mod connections;
mod log;
mod names;
mod ours;
mod questions;
mod tally;
