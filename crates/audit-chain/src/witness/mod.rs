//! Witnesses: others who have seen a trail grow and say so by their signature.
//!
//! [`Witness`] is one of them, speaking C2SP tlog-witness
//! (c2sp.org/tlog-witness) once the bytes of requests are there: it keeps the
//! newest checkpoint of each log in a [`Store`], cosigns what a consistency
//! proof shows to be more of the same log, and refuses everything else with
//! the [`Refusal`] that the protocol asks for. [`AddCheckpoint`] is what it is
//! asked, [`policy`] says whose signatures are enough.

pub mod policy;
mod refusal;
mod request;
mod service;
mod store;

pub use policy::WitnessPolicy;
pub use refusal::Refusal;
pub use request::{AddCheckpoint, MAX_PROOF, MAX_REQUEST, RequestError, cosignatures};
pub use service::{Witness, WitnessConfig};
pub use store::{Store, StoreError};
