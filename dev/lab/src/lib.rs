//! Real sandboxes for tests and for `sandtrace demo`.
//!
//! A lab is one network namespace of its own, so that nothing collides with the host or with
//! another lab, and a directory. In it live the outside world and the sandboxes: microVMs run by
//! QEMU and container-like sandboxes made of namespaces and an overlay. Everything is removed when
//! its handle is dropped, and [`Lab::sweep`] removes what a killed process left behind.

mod console;
mod error;
mod guest_binary;
mod image;
pub mod kernel;
mod lab;
mod microvm;
mod namespace;
mod netns;
mod places;
mod process;
pub mod programs;
mod registry;
mod run;
pub mod scenario;
mod standin;
mod tree;
pub mod world;

pub use console::Ending;
pub use error::LabError;
pub use guest_binary::{GuestMissing, guest_binary};
pub use image::make_image;
pub use lab::{Lab, LabConfig};
pub use microvm::{Accelerator, Detected, MicroVm, MicroVmConfig, detect};
pub use namespace::{NamespaceConfig, NamespaceSandbox, Overlay};
pub use places::{GUEST_VARIABLE, STATE_VARIABLE};
pub use run::Outcome;
pub use sandtrace_guest::{Network, Report, Scenario, Script};
pub use standin::{
    CANARY, Container, Docker, Slot, SlotSandbox, StandIn, StandInConfig, StandInForm,
};
pub use tree::TreeEntry;
