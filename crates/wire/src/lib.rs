//! Sans-I/O network parsing: frames, DNS, TLS hellos, also over QUIC, HTTP heads, the flow table.
//!
//! A capture feeds [`Packet`]s to a [`FlowTable`], which counts each in exactly
//! one flow and reports flows and DNS questions to a [`FlowSink`]. Nothing here
//! does I/O or asks for the time, and everything that comes from the guest is
//! read with bounds on time and memory.

#![cfg_attr(
    test,
    expect(clippy::cast_possible_truncation, reason = "test data is small")
)]

mod calls;
mod claims;
mod community_id;
mod config;
mod dns;
mod earliest;
mod findings;
mod flow;
mod fragments;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http;
mod key;
mod names;
mod orientation;
mod packet;
mod preamble;
mod quic;
mod reader;
mod reassembly;
mod socks;
mod starttls;
mod tcp;
#[cfg(test)]
mod testing;
mod text;
mod tls;
mod tunnel;
mod view;

pub use config::{FlowConfig, Numbering};
pub use dns::DnsTransaction;
pub use findings::{Finding, Findings};
pub use flow::{Bulk, BulkTcp, FlowSink, FlowTable, Found, Totals, Wanted, WireCount};
pub use http::HttpFacts;
pub use names::{NameEvidence, NameSource};
pub use orientation::Orientation;
pub use packet::{Direction, Moment, Packet};
pub use tcp::TcpState;
pub use tls::{CertificateFacts, TlsFacts};
pub use tunnel::{TunnelFacts, TunnelKind};
pub use view::{Aggregate, Bounds, End, Endpoint, FlowView, Initiator, Phase, Protocol, Traffic};
