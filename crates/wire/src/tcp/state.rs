//! Connection state in the words of Zeek's `conn_state`.

/// State of a TCP connection as Zeek's conn.log names it; "originator" is the
/// side that began the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// Attempt seen, no reply.
    S0,
    /// Established, not ended.
    S1,
    /// Established and ended by both sides.
    SF,
    /// Attempt rejected.
    Rej,
    /// Established; the originator has ended its side, no reply to that.
    S2,
    /// Established; the responder has ended its side, no reply to that.
    S3,
    /// Established; the originator aborted.
    Rsto,
    /// Established; the responder aborted.
    Rstr,
    /// The originator sent a SYN and then a RST; no SYN-ACK was seen.
    Rstos0,
    /// The responder sent a SYN-ACK and then a RST; no SYN was seen.
    Rstrh,
    /// The originator sent a SYN and then a FIN; no SYN-ACK was seen.
    Sh,
    /// The responder sent a SYN-ACK and then a FIN; no SYN was seen.
    Shr,
    /// No SYN seen: traffic in mid-stream.
    Oth,
}

impl TcpState {
    /// Zeek's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S0 => "S0",
            Self::S1 => "S1",
            Self::SF => "SF",
            Self::Rej => "REJ",
            Self::S2 => "S2",
            Self::S3 => "S3",
            Self::Rsto => "RSTO",
            Self::Rstr => "RSTR",
            Self::Rstos0 => "RSTOS0",
            Self::Rstrh => "RSTRH",
            Self::Sh => "SH",
            Self::Shr => "SHR",
            Self::Oth => "OTH",
        }
    }
}
