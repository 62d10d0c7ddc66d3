//! Canonical JSON (RFC 8785), integers only.
//!
//! [`to_vec`] writes it, [`check`] refuses everything else. Floating-point
//! numbers are no part of a trail: two programs round them differently.

mod scan;
mod serializer;
mod text;

pub(crate) use scan::Scanner;
pub use scan::{Flaw, NotCanonical, check};
pub(crate) use serializer::write;
pub use serializer::{Error, to_vec};

/// How many objects and arrays may be open at once; the outermost counts.
pub const MAX_DEPTH: usize = 32;
