//! The flow table: every packet is counted in exactly one flow.

mod aggregate;
mod bulk;
mod carried;
mod certified;
mod deadlines;
mod dns_kind;
mod fold;
mod folded;
mod index;
mod lookups;
mod macs;
mod marks;
mod one;
mod origin;
mod pieces;
mod recency;
mod search;
mod sniff;
mod table;
#[cfg(test)]
mod tests;
mod totals;

pub use bulk::{Bulk, BulkTcp};
pub use search::{Found, Wanted};
pub use table::{FlowSink, FlowTable};
pub use totals::{Totals, WireCount};
