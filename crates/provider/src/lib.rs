//! Finds sandboxes on a host and says what of each can be captured.
//!
//! A provider looks and reports; it never starts a capture and never guesses
//! an interface. What it cannot see it states as [`Coverage`], with the reason.
//!
//! Everything that a VMM says of itself (arguments, API answers, names of its
//! files) is hostile: it is bounded, and what counts is what the kernel shows
//! the process to have open.

mod claims;
mod cloud_hypervisor;
mod config;
mod daytona;
mod describe;
mod discover;
mod e2b;
mod error;
mod firecracker;
mod fit;
mod http;
mod ids;
mod inspect;
mod kata;
mod libkrun;
mod manual;
mod outline;
mod places;
mod qemu;
mod sighting;
mod state;
mod target;

pub use config::DiscoverConfig;
pub use daytona::{ContainerEvent, ContainerEvents, Containers, DockerError};
pub use discover::{Discovery, Problem, contained, discover, find, find_in, sightings, vmms};
pub use error::{FindError, Found};
pub use ids::is_valid_id;
pub use manual::{ManualSpec, manual, manual_in};
pub use outline::Outline;
pub use places::USUAL_FOLDERS;
pub use sandtrace_event::Coverage;
pub use sandtrace_sys::process::ProcRoot;
pub use sighting::Sighting;
pub use state::{StateWord, Stillness, run_state, turns_in_pause};
pub use target::{Disk, DiskFormat, ProviderKind, Target};
