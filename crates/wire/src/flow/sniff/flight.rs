//! TLS that begins amid a connection, once the server has answered to what was
//! said in the clear: how databases, directories and others ask for it.

use super::{Kind, Piece, Sniff};
use crate::findings::Finding;
use crate::tls::starts_like_tls;

impl Sniff {
    /// Looks for TLS at the start of what the client sends after the server spoke.
    pub(super) fn look_for_flight(&mut self, piece: Piece<'_>) {
        let is_other = matches!(self.kind, Kind::Lines | Kind::Unknown);
        if !is_other || !self.answered || piece.offset > self.bound() {
            return;
        }
        let before = self.acked.checked_sub(piece.offset).map(usize::try_from);
        let Some(Ok(before)) = before else { return };
        let flight = piece.bytes.get(before..).unwrap_or_default();
        if flight.is_empty() {
            return;
        }
        self.answered = false;
        if starts_like_tls(flight) == Some(false) {
            return;
        }
        if self.acked < self.kept() {
            // What came before may still be replaced, so it is not let go.
            self.findings.insert(Finding::StartUnread);
            return;
        }
        self.keep_from(self.acked);
        self.is_inner = true;
        self.kind = Kind::Inner(Box::default());
    }

    /// TLS follows lines that ask for it. Unless the server agreed in between, it may
    /// take both for something else.
    pub(super) fn check_asked(&mut self) {
        let agreed = self.answered && self.asked_at == Some(self.acked);
        if self.asked_at.is_some() && !self.greeted && !agreed {
            self.findings.insert(Finding::StartUnread);
        }
    }
}
