//! TCP: connection state and sequence accounting.

mod sequence;
mod state;

pub(crate) use sequence::{Seen, Sequence};
pub use state::TcpState;
pub(crate) use state::{Ending, Ends};
