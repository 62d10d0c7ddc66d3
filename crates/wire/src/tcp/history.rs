//! What happened on a connection, in the letters of Zeek's `history`.

use crate::frame::TcpFlags;

/// Each letter once, in the order in which they came first: upper case by the
/// originator, lower case by the responder. `S` SYN, `H` SYN-ACK, `A` pure
/// ACK, `D` payload, `F` FIN, `R` RST, `T` payload sent again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    letters: [u8; LETTERS.len() * 2],
    len: usize,
}

const LETTERS: [u8; 7] = *b"SHADFRT";

impl History {
    /// Takes in one segment with `len` bytes of payload, of which `resent`
    /// were sent before.
    pub(crate) fn segment(&mut self, by_originator: bool, flags: TcpFlags, len: u32, resent: u32) {
        let ends = flags.fin() || flags.rst();
        let happened = [
            (flags.syn() && !flags.ack(), b'S'),
            (flags.syn() && flags.ack(), b'H'),
            (flags.ack() && !flags.syn() && !ends && len == 0, b'A'),
            (len > 0, b'D'),
            (resent > 0, b'T'),
            (flags.fin(), b'F'),
            (flags.rst(), b'R'),
        ];
        for (_, letter) in happened.into_iter().filter(|(did, _)| *did) {
            self.add(if by_originator {
                letter
            } else {
                letter.to_ascii_lowercase()
            });
        }
    }

    /// The letters so far.
    pub(crate) fn as_str(&self) -> &str {
        let letters = self.letters.get(..self.len).unwrap_or_default();
        std::str::from_utf8(letters).unwrap_or_default()
    }

    fn add(&mut self, letter: u8) {
        let known = self.letters.get(..self.len).unwrap_or_default();
        if known.contains(&letter) {
            return;
        }
        if let Some(place) = self.letters.get_mut(self.len) {
            *place = letter;
            self.len += 1;
        }
    }
}
