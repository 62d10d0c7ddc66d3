//! Real sandboxes for tests and for `sandtrace demo`.
//!
//! A lab is one network namespace of its own, so that nothing collides with the host or with
//! another lab, and a directory. In it live the outside world and the sandboxes: microVMs run by
//! QEMU and container-like sandboxes made of namespaces and an overlay. Everything is removed when
//! its handle is dropped, and [`Lab::sweep`] removes what a killed process left behind.

pub mod scenario;
mod tree;
pub mod world;

pub use sandtrace_guest::{Network, Report, Scenario, Script};
pub use tree::TreeEntry;
