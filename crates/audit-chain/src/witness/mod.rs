//! Witnesses: others who have seen a trail grow and say so by their signature.
//!
//! [`policy`] says whose signatures are enough.

pub mod policy;

pub use policy::WitnessPolicy;
