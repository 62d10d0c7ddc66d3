//! Real sandboxes, run to their end. They need root, QEMU and what `cargo xtask setup` prepares.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod cleanup;
mod microvm;
mod namespace;
mod support;
