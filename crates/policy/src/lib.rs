//! The policy manifest: parse, compile, evaluate.
//!
//! [`Policy::parse`] turns a manifest (docs/policy.md) into tables that are
//! built once; an [`Engine`] per sandbox then judges one observation after
//! the other. Nothing here reads a file, a clock or the network.
//!
//! The way of a manifest: `yaml` (text to a tree that knows its places) ->
//! `load` (tree to `manifest` types, every error with its place) ->
//! `reach` (rules that could never decide) -> `index` (tables) -> `engine`.

mod cidr;
mod engine;
mod error;
mod host;
mod index;
mod load;
mod manifest;
mod path;
mod policy;
mod ports;
mod print;
mod profile;
mod reach;
mod suggest;
mod summary;
#[cfg(test)]
mod testing;
mod yaml;

pub use engine::{Engine, Judgement, is_alarm_call};
pub use error::{PolicyError, PolicyErrors};
pub use policy::{MAX_MANIFEST_BYTES, Policy};
pub use profile::{ShippedProfile, shipped_profiles};
pub use summary::RuleSummary;
