//! The program as its users run it: real sandboxes, real trails, real mistakes.
//!
//! What needs root says `skipped: …` to a plain user and fails in CI.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod attacks;
mod backends;
mod bad_files;
mod bad_sandboxes;
mod before;
mod capturing;
mod demo;
mod disks;
mod disorder;
mod ending;
mod evidence;
mod file_events;
mod fsdiff;
mod full_disk;
mod hostile_guest;
mod keys;
mod leftovers;
mod outputs;
mod pauses;
mod replay;
mod resuming;
mod rights;
mod schema;
mod settings;
mod settings_schema;
mod support;
mod syscalls;
mod tampering;
mod terminal;
mod watch;
mod witness;
mod words;
