//! One suite for every provider, on real processes with real taps, images,
//! namespaces and sockets. Needs root and the static guest program.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod again;
mod apart;
mod calls;
mod compliance;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod crowded;
#[cfg(test)]
mod escape;
mod failing;
#[cfg(test)]
mod file_events;
mod fleet;
mod hostile;
mod hub;
mod late;
mod lone;
mod manners;
mod named;
mod orchestrated;
mod orders;
mod reloaded;
mod reused;
mod secrets;
mod senses;
mod side_by_side;
mod slots;
mod snapshots;
mod suite;
mod support;
