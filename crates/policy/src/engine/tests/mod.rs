//! Verdicts, in tables.

mod arbitrary;
mod builtin;
mod dns;
mod files;
mod limits;
mod names;
mod network;
mod shipped;
mod speed;
mod syscalls;
