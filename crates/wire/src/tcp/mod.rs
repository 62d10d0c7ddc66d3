//! TCP: connection state and sequence accounting.

mod connection;
mod history;
mod sequence;
mod state;

pub(crate) use connection::{Connection, Handshake};
pub(crate) use history::History;
pub(crate) use sequence::{Seen, Sequence};
pub use state::TcpState;
pub(crate) use state::{Ending, Ends};
