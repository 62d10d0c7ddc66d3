//! The kernel interfaces of Sandtrace: the only crate with unsafe code.
//!
//! Each module wraps one interface into a safe type that owns what it
//! opened. Nothing here interprets what it reads.

pub mod addresses;
pub mod blockdev;
pub mod bpf;
pub mod clock;
pub mod device;
pub mod fiemap;
pub mod links;
pub mod mapped;
pub mod netdev;
mod netlink;
pub mod netns;
pub mod pidns;
pub mod priority;
pub mod proc_events;
pub mod process;
pub mod ptrace;
pub mod ring;
pub mod seccomp;
pub mod syscall;
pub mod tap;
pub mod tasks;
pub mod tsc;
pub mod unshare;
