//! The flow table: every packet is counted in exactly one flow.

mod table;
mod totals;

pub use table::{FlowSink, FlowTable};
pub use totals::{Totals, WireCount};
