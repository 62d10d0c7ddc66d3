//! What a capture hands in: one frame, its direction and its time.

/// Which way a frame went on the sandbox's interface.
///
/// It comes from the kernel's packet type, never from an address: the guest
/// writes its own source addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The guest sent it.
    FromSandbox,
    /// The host delivered it to the guest.
    ToSandbox,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::FromSandbox => Self::ToSandbox,
            Self::ToSandbox => Self::FromSandbox,
        }
    }
}

/// One instant on both clocks. This crate never asks for the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Moment {
    /// Microseconds of a clock that never steps; all intervals are taken from it.
    pub mono_us: u64,
    /// Nanoseconds since 1970-01-01T00:00:00Z, for people and other machines.
    pub wall_ns: u64,
}

impl Moment {
    /// How long after `earlier` this is, in microseconds; zero if it is not after it.
    #[must_use]
    pub const fn us_since(self, earlier: Self) -> u64 {
        self.mono_us.saturating_sub(earlier.mono_us)
    }
}

/// One captured Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When the capture saw it.
    pub at: Moment,
    /// Which way it went.
    pub direction: Direction,
    /// The captured part, from the Ethernet header on; may be cut at a snap length.
    pub bytes: &'a [u8],
    /// Length of the whole frame in bytes as the interface counted it.
    pub wire_len: u32,
    /// VLAN identifier that the kernel took out of the bytes.
    pub vlan: Option<u16>,
}

impl Packet<'_> {
    /// The same with a length that is no less than what was captured.
    pub(crate) fn at_least_captured(self) -> Self {
        let captured = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        Self {
            wire_len: self.wire_len.max(captured),
            ..self
        }
    }
}

/// The MAC at this place of a frame: 0 is whose it is for, 6 whose it is from.
pub(crate) fn mac_at(bytes: &[u8], at: usize) -> Option<[u8; 6]> {
    bytes.get(at..)?.first_chunk().copied()
}
