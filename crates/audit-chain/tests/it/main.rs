//! Trails written by the real writer, attacked, and verified twice.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "in tests, the helpers too, a surprise is a failure"
)]

mod attacks;
mod blocks;
mod checkpoints;
mod corpora;
mod document;
mod full_disk;
mod merkle;
mod mutations;
mod naive;
mod notes;
mod policies;
mod proofs;
mod sample;
mod signed;
mod speed;
mod witnesses;
mod writing;
