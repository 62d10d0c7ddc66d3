//! Connection state in the words of Zeek's `conn_state`.

use crate::frame::TcpFlags;

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

/// Both ends of a connection as their control bits tell, after Zeek's TCP analyzer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    originator: End,
    responder: End,
    met_at_end: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct End {
    now: Stage,
    before: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Inactive,
    SynSent,
    SynAckSent,
    /// Traffic without a SYN.
    Partial,
    Established,
    Closed,
    Reset,
}

impl End {
    fn enter(&mut self, stage: Stage) {
        self.before = self.now;
        self.now = stage;
    }

    fn is_silent(self) -> bool {
        matches!(self.now, Stage::Inactive | Stage::Partial)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Fin,
    Rst,
}

impl Ends {
    /// Takes in one segment.
    pub(crate) fn segment(&mut self, by_originator: bool, flags: TcpFlags, payload: u32) {
        let (own, peer) = if by_originator {
            (&mut self.originator, &mut self.responder)
        } else {
            (&mut self.responder, &mut self.originator)
        };
        match own.now {
            Stage::Inactive => {
                leave_inactive(own, peer, by_originator, flags, payload);
                self.met_at_end |= flags.fin() && !flags.syn();
            }
            Stage::SynSent | Stage::SynAckSent | Stage::Established | Stage::Partial => {
                leave_active(own, peer, flags);
            }
            Stage::Closed if flags.rst() && peer.now != Stage::Closed => own.enter(Stage::Reset),
            Stage::Closed | Stage::Reset => {}
        }
    }

    /// How the connection ended, if it did.
    pub(crate) fn ending(&self) -> Option<Ending> {
        match (self.originator.now, self.responder.now) {
            (Stage::Reset, _) | (_, Stage::Reset) => Some(Ending::Rst),
            (Stage::Closed, Stage::Closed) => Some(Ending::Fin),
            _ => None,
        }
    }

    /// Whether the first that was seen of an end was its closing.
    pub(crate) const fn is_met_at_end(&self) -> bool {
        self.met_at_end
    }

    /// Whether nobody but the originator has said anything.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.responder.now == Stage::Inactive
    }

    /// Zeek's word for both together.
    pub(crate) fn state(&self, any_payload: bool) -> TcpState {
        let (originator, responder) = (self.originator, self.responder);
        match (originator.now, responder.now) {
            (Stage::SynSent | Stage::SynAckSent, Stage::Reset) => TcpState::Rej,
            (Stage::Reset, Stage::Reset) if !any_payload => TcpState::Rej,
            (_, Stage::Reset) if originator.is_silent() => TcpState::Rstrh,
            (_, Stage::Reset) => TcpState::Rstr,
            (Stage::Reset, _) if responder.is_silent() => TcpState::Rstos0,
            (Stage::Reset, _) => TcpState::Rsto,
            (Stage::Closed, Stage::Closed) => TcpState::SF,
            (Stage::Closed, _) if responder.is_silent() => TcpState::Sh,
            (Stage::Closed, _) => TcpState::S2,
            (_, Stage::Closed) if originator.is_silent() => TcpState::Shr,
            (_, Stage::Closed) => TcpState::S3,
            (Stage::SynSent, Stage::Inactive) => TcpState::S0,
            (Stage::Established, Stage::Established) => TcpState::S1,
            _ => TcpState::Oth,
        }
    }
}

fn leave_inactive(
    own: &mut End,
    peer: &mut End,
    by_originator: bool,
    flags: TcpFlags,
    payload: u32,
) {
    if flags.syn() && by_originator {
        own.enter(if flags.ack() {
            Stage::SynAckSent
        } else {
            Stage::SynSent
        });
    } else if flags.syn() {
        if peer.now == Stage::SynSent {
            peer.enter(Stage::Established);
        }
        own.enter(Stage::Established);
    }
    if flags.fin() {
        own.enter(Stage::Closed);
    }
    if flags.rst() {
        own.enter(Stage::Reset);
    }
    if own.now != Stage::Inactive {
        return;
    }
    if !by_originator && payload == 0 && peer.now == Stage::SynSent {
        // Some stacks acknowledge a SYN before they answer it.
    } else if flags.ack() && peer.now == Stage::Established {
        // The originator's SYN was missed.
        own.enter(Stage::Established);
    } else {
        own.enter(Stage::Partial);
    }
}

fn leave_active(own: &mut End, peer: &mut End, flags: TcpFlags) {
    if flags.syn() && !flags.ack() && own.now == Stage::Partial && peer.now == Stage::Inactive {
        own.enter(Stage::SynSent);
    }
    if flags.fin() && !flags.rst() {
        own.enter(Stage::Closed);
        // FIN and then RST on the other side was a normal end after all.
        if peer.now == Stage::Reset && peer.before == Stage::Closed {
            peer.enter(Stage::Closed);
        }
    }
    if flags.rst() {
        own.enter(Stage::Reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments as in Zeek's history: S SYN, H SYN-ACK, A ACK, D data, F FIN,
    /// R RST; upper case by the originator, lower case by the responder.
    #[track_caller]
    fn check(history: &str, expected: TcpState) {
        let mut ends = Ends::default();
        let mut any_payload = false;
        for letter in history.chars() {
            let (flags, payload) = match letter.to_ascii_uppercase() {
                'S' => (0x02, 0),
                'H' => (0x12, 0),
                'A' => (0x10, 0),
                'D' => (0x18, 10),
                'F' => (0x11, 0),
                'R' => (0x14, 0),
                other => panic!("no segment {other}"),
            };
            any_payload |= payload > 0;
            ends.segment(
                letter.is_ascii_uppercase(),
                TcpFlags::from_bits(flags),
                payload,
            );
        }
        assert_eq!(ends.state(any_payload), expected, "{history}");
    }

    #[test]
    fn histories_have_the_states_that_zeek_gives_them() {
        check("S", TcpState::S0);
        check("Sh", TcpState::S1);
        check("ShADda", TcpState::S1);
        check("ShADdaFfA", TcpState::SF);
        check("ShADdafFa", TcpState::SF);
        check("ShAF", TcpState::S2);
        check("ShAf", TcpState::S3);
        check("Sr", TcpState::Rej);
        check("ShADR", TcpState::Rsto);
        check("ShADr", TcpState::Rstr);
        check("SR", TcpState::Rstos0);
        check("SF", TcpState::Sh);
        check("DadA", TcpState::Oth);
        check("ShADFr", TcpState::Rstr);
        check("ShADFfR", TcpState::SF);
        check("DdFf", TcpState::SF);
        check("hAr", TcpState::Rstr);
    }
}
