//! What begins amid a connection, once the server has answered: TLS, for which
//! databases, directories and others ask in the clear, or the next request.

use super::{Kind, Piece, Sniff};
use crate::findings::Finding;
use crate::tls::starts_like_tls;

impl Sniff {
    /// Looks at the start of what the client sends after the server spoke: TLS may
    /// begin there, or the request after one whose end was not captured.
    pub(super) fn look_for_flight(&mut self, piece: Piece<'_>) {
        let may_begin = match &self.kind {
            Kind::Http(requests) if requests.has_begun() => {
                requests.is_adrift() && self.kept() <= self.acked
            }
            Kind::Http(_) | Kind::Lines | Kind::Unknown => piece.offset <= self.bound(),
            _ => false,
        };
        let flight = may_begin.then(|| self.flight(piece));
        let Some(Some(flight)) = flight else { return };
        if let Kind::Http(requests) = &mut self.kind
            && requests.has_begun()
        {
            requests.resume(self.acked);
            self.keep_from(self.acked);
        } else {
            self.look_for_tls(flight);
        }
    }

    fn look_for_tls(&mut self, flight: &[u8]) {
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
        self.kind = self.begin_inner();
    }

    /// TLS amid the connection: the server's begins behind what it said so far.
    pub(super) fn begin_inner(&mut self) -> Kind {
        self.server_from = self.heard;
        Kind::Inner(Box::default())
    }

    /// What of a segment stands behind what the server had when it spoke.
    fn flight<'a>(&mut self, piece: Piece<'a>) -> Option<&'a [u8]> {
        if !self.answered {
            return None;
        }
        let before = usize::try_from(self.acked.checked_sub(piece.offset)?).ok()?;
        let flight = piece.bytes.get(before..).filter(|it| !it.is_empty())?;
        self.answered = false;
        Some(flight)
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
