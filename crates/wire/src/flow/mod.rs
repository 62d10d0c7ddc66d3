//! The flow table: every packet is counted in exactly one flow.

mod deadlines;
mod one;
mod origin;
mod recency;
mod sniff;
mod table;
#[cfg(test)]
mod tests;
mod totals;

pub use table::{FlowSink, FlowTable};
pub use totals::{Totals, WireCount};
