//! Projections of a trail: which events go where, and how they look there.
//!
//! A sink gets an event only after the trail has it. Nothing here can hold
//! up or refuse a record: a sink that is slow or broken loses lines of its
//! own copy, and says how many.

mod carrier;
mod fanout;
mod filter;
mod queue;
mod sink;
mod target;
pub mod terminal;

pub use fanout::{Fanout, Report, State};
pub use filter::Filter;
pub use sink::{Config, Form, Record, Sink, SinkError, WhenBusy, open};
pub use target::{ParseTargetError, Target};
