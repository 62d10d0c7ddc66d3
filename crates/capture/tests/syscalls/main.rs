//! VMM system calls against strace, and what tracing does to the traced.
//!
//! These tests need root; without it they say so and pass.

#[cfg(test)]
mod against_strace;
#[cfg(test)]
mod attach;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod confined;
#[cfg(test)]
mod escape;
#[cfg(test)]
mod full;
#[cfg(test)]
mod kvm;
#[cfg(test)]
mod namespace;
#[cfg(test)]
mod program;
#[cfg(test)]
mod records;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod times;
