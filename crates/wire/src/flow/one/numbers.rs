//! Which connection a flow's frames belong to, as TCP's numbers tell.

use super::Flow;
use crate::findings::Finding;
use crate::frame::{Frame, TcpHeader};
use crate::packet::Direction;
use crate::tcp::{Handshake, Seen};
use crate::view::Initiator;

impl Flow {
    /// Whether a new connection begins under the key of this one: after its end,
    /// or with numbers that are not its own, where the end was not seen.
    pub(crate) fn is_succeeded_by(&self, frame: &Frame<'_>, direction: Direction) -> bool {
        let (Some(tcp), Some(header)) = (&self.tcp, frame.tcp) else {
            return false;
        };
        header.flags.opens()
            && (self.ended_us.is_some()
                || self.is_by_client(direction) && tcp.is_restarted_by(header))
    }

    /// Another connection had the key before. Its server may go on with that
    /// one: what the tap saw of its end, it need not have.
    pub(crate) fn succeeds(&mut self) {
        if let Some(tcp) = &mut self.tcp {
            tcp.handshake = Handshake::Contested;
        }
    }

    /// Notes payload that the server may not take for what it was read as: that of
    /// another connection, or a decoy before one that goes on unseen.
    pub(super) fn compare_numbers(
        &mut self,
        header: TcpHeader,
        len: u32,
        seen: Seen,
        by_client: bool,
    ) {
        let Some(tcp) = &self.tcp else { return };
        let finding = match tcp.handshake {
            Handshake::Answered => return,
            Handshake::Contested if by_client && len > 0 && !header.flags.syn() => {
                Finding::SynAgain
            }
            // One byte before the start is a probe whether the other end lives.
            Handshake::Unanswered
                if !self.claims.as_slice().is_empty()
                    && (by_client && seen.before > 1 || tcp.from_client.missed() > 0) =>
            {
                Finding::StartUnread
            }
            _ => return,
        };
        if self.initiator == Initiator::Sandbox {
            self.findings.insert(finding);
        }
    }
}
