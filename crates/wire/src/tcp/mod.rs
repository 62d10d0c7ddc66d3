//! TCP: connection state and sequence accounting.

mod state;

pub use state::TcpState;
