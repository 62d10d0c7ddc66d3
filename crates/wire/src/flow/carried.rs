//! How a frame came to the table: by itself, joined of fragments, in a tunnel.

use crate::packet::{Direction, Moment};
use crate::tunnel::TunnelKind;

/// How frames are cut on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Segments {
    /// Into so many, all frames together.
    Known(u64),
    /// Into those with so many bytes of payload; 0: nobody said.
    Of(u32),
}

/// What a frame's bytes do not say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    pub(crate) at: Moment,
    /// When the first of its frames came.
    pub(crate) since: Moment,
    pub(crate) direction: Direction,
    /// Frames that it took: more than one for a datagram joined of fragments.
    pub(crate) frames: u64,
    /// Bytes of all of them.
    pub(crate) wire_bytes: u64,
    /// Packets that they are on a wire.
    pub(crate) segments: Segments,
    /// Number of the tunnel that carries it; 0 where none does.
    pub(crate) within: u32,
    /// That tunnel's kind, and the flow that carries it.
    pub(crate) tunnel: Option<(TunnelKind, u64)>,
    /// Tunnels around it.
    pub(crate) depth: u8,
    /// The capture only counted it, so that it began no call and answered none:
    /// when the last of its payload was seen.
    pub(crate) bulk: Option<Moment>,
}
