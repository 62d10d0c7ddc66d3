//! Making guest-chosen text safe to print, and short.

use std::fmt::{self, Write as _};

/// Which characters pass as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Printable ASCII only: for host names, which are ASCII on the wire, so
    /// that no look-alike letter passes for another.
    Ascii,
    /// Every printable character that stands alone: not control, format
    /// (bidirectional overrides, zero-width) or combining characters, private
    /// use, or spaces other than U+0020.
    Printable,
}

/// Text from a hostile source, made of what is safe to print.
#[derive(Clone, Debug)]
pub struct Text<'a>(Form<'a>);

#[derive(Clone, Debug)]
enum Form<'a> {
    /// Every character is ASCII and passes as it is, as nearly all text does.
    Plain(&'a str),
    Pieces(Vec<Piece>),
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    /// A character that passes as it is.
    Plain(char),
    /// A backslash, doubled so that no plain text reads like an escape.
    Backslash,
    /// A character, shown as `\n`, `\t`, `\r`, `\0` or `\u{…}`.
    Escaped(char),
    /// A byte that is not UTF-8, shown as `\xNN`.
    Byte(u8),
}

const ELLIPSIS: &str = "…";

impl<'a> Text<'a> {
    /// Reads `bytes`, which need not be UTF-8.
    #[must_use]
    pub fn new(bytes: &'a [u8], charset: Charset) -> Self {
        let plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
        if bytes.iter().all(plain)
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Self(Form::Plain(text));
        }
        Self(Form::Pieces(pieces(bytes, charset)))
    }

    /// The whole text.
    #[must_use]
    pub fn whole(&self) -> String {
        match &self.0 {
            Form::Plain(text) => (*text).to_owned(),
            Form::Pieces(pieces) => render(pieces),
        }
    }

    /// At most `columns` characters, with an ellipsis in place of the middle:
    /// both ends of a path matter.
    #[must_use]
    pub fn middle(&self, columns: usize) -> String {
        if self.width() <= columns {
            return self.whole();
        }
        let room = columns.saturating_sub(1);
        match &self.0 {
            Form::Plain(text) => {
                let (head, rest) = text.split_at(room / 2);
                let tail = rest.len().saturating_sub(room - head.len());
                format!("{head}{ELLIPSIS}{}", rest.split_at(tail).1)
            }
            Form::Pieces(pieces) => {
                let (head, rest) = pieces.split_at(fitting(pieces.iter(), room / 2));
                let used = width(head);
                let tail = fitting(rest.iter().rev(), room.saturating_sub(used));
                let tail = rest.split_at(rest.len().saturating_sub(tail)).1;
                format!("{}{ELLIPSIS}{}", render(head), render(tail))
            }
        }
    }

    /// At most `columns` characters, with an ellipsis in place of the end.
    #[must_use]
    pub fn start(&self, columns: usize) -> String {
        if self.width() <= columns {
            return self.whole();
        }
        let room = columns.saturating_sub(1);
        match &self.0 {
            Form::Plain(text) => format!("{}{ELLIPSIS}", text.split_at(room).0),
            Form::Pieces(pieces) => {
                let head = fitting(pieces.iter(), room);
                format!("{}{ELLIPSIS}", render(pieces.split_at(head).0))
            }
        }
    }

    fn width(&self) -> usize {
        match &self.0 {
            Form::Plain(text) => text.len(),
            Form::Pieces(pieces) => width(pieces),
        }
    }
}

fn pieces(bytes: &[u8], charset: Charset) -> Vec<Piece> {
    let chunks = bytes.utf8_chunks().flat_map(|chunk| {
        let chars = chunk.valid().chars().map(|c| Piece::of(c, charset));
        chars.chain(chunk.invalid().iter().copied().map(Piece::Byte))
    });
    chunks.collect()
}

impl Piece {
    fn of(c: char, charset: Charset) -> Self {
        let passes = match charset {
            _ if c == '\\' => return Self::Backslash,
            Charset::Ascii => c == ' ' || c.is_ascii_graphic(),
            // std escapes exactly what this charset excludes, and quotes.
            Charset::Printable => matches!(c, '"' | '\'') || c.escape_debug().len() == 1,
        };
        if passes {
            Self::Plain(c)
        } else {
            Self::Escaped(c)
        }
    }

    fn columns(self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Backslash => 2,
            Self::Escaped(c) => escaped(c).count(),
            Self::Byte(_) => 4,
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Plain(c) => f.write_char(c),
            Self::Backslash => f.write_str("\\\\"),
            Self::Escaped(c) => escaped(c).try_for_each(|c| f.write_char(c)),
            Self::Byte(byte) => write!(f, "\\x{byte:02x}"),
        }
    }
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let short = match c {
        '\n' | '\t' | '\r' => Some(c.escape_default()),
        _ => None,
    };
    let long = short.is_none().then(|| c.escape_unicode());
    short
        .into_iter()
        .flatten()
        .chain(long.into_iter().flatten())
}

fn width(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.columns()).sum()
}

/// How many leading pieces fit into `room` characters.
fn fitting<'a>(pieces: impl Iterator<Item = &'a Piece>, room: usize) -> usize {
    let mut used = 0_usize;
    pieces
        .take_while(|piece| {
            used = used.saturating_add(piece.columns());
            used <= room
        })
        .count()
}

fn render(pieces: &[Piece]) -> String {
    let mut text = String::with_capacity(pieces.len());
    for piece in pieces {
        // Writing to a String cannot fail.
        let _ = write!(text, "{piece}");
    }
    text
}

/// JSON text with everything that is not printable ASCII escaped (RFC 8259
/// section 7): it spells the same values, and a terminal only shows it.
#[must_use]
pub fn ascii_json(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(Text::new(bytes, Charset::Printable).whole(), expected);
    }

    #[test]
    fn what_moves_a_terminal_is_made_visible() {
        check(b"plain/path-1.txt", "plain/path-1.txt");
        check("caf\u{e9} \u{6587}\u{4ef6}".as_bytes(), "café 文件");
        check(b"a\nb\tc\rd", "a\\nb\\tc\\rd");
        check(b"\x1b[2J\x07\x00\x7f", "\\u{1b}[2J\\u{7}\\u{0}\\u{7f}");
        check("\u{9b}1m".as_bytes(), "\\u{9b}1m");
        check("gnp\u{202e}.exe".as_bytes(), "gnp\\u{202e}.exe");
        check("\u{2066}a\u{2069}".as_bytes(), "\\u{2066}a\\u{2069}");
        check("a\u{200b}b\u{feff}".as_bytes(), "a\\u{200b}b\\u{feff}");
        check("e\u{301}".as_bytes(), "e\\u{301}");
        check("a\u{2028}b\u{a0}c".as_bytes(), "a\\u{2028}b\\u{a0}c");
        check(b"caf\xe9/\xff", "caf\\xe9/\\xff");
        check(b"it's \"here\"", "it's \"here\"");
        check(br"\u{1b}", r"\\u{1b}");
    }

    #[test]
    fn json_keeps_its_values() {
        let nasty = "a\"\\ \u{7f}\u{9b}2J \u{202e}é \u{1f980}";
        let json = serde_json::to_string(nasty).unwrap();
        let ascii = ascii_json(&json);
        assert!(
            ascii.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{ascii}"
        );
        assert_eq!(serde_json::from_str::<String>(&ascii).unwrap(), nasty);
    }

    #[test]
    fn host_names_are_ascii() {
        let spoof = Text::new("\u{430}pi.stripe.com".as_bytes(), Charset::Ascii);
        assert_eq!(spoof.whole(), "\\u{430}pi.stripe.com");
    }

    #[test]
    fn long_text_keeps_both_ends() {
        let text = Text::new(b"/home/agent/very/deep/file.txt", Charset::Printable);
        assert_eq!(text.middle(21), "/home/agen…p/file.txt");
        assert_eq!(text.start(12), "/home/agent…");
        assert_eq!(text.middle(30), "/home/agent/very/deep/file.txt");
        assert_eq!(text.middle(0), "…");
        assert_eq!(text.start(0), "…");
    }

    #[test]
    fn escapes_are_never_cut() {
        let text = Text::new(&[0xff; 10], Charset::Printable);
        assert_eq!(text.middle(14), "\\xff…\\xff\\xff");
        assert_eq!(text.start(11), "\\xff\\xff…");
    }

    proptest! {
        #[test]
        fn plain_text_is_cut_as_pieces_are(text in "[ -~&&[^\\\\]]{0,40}", columns in 0_usize..50) {
            let text = text.as_bytes();
            let plain = Text::new(text, Charset::Ascii);
            let cut = Text(Form::Pieces(pieces(text, Charset::Ascii)));
            prop_assert!(matches!(plain.0, Form::Plain(_)));
            prop_assert_eq!(plain.whole(), cut.whole());
            prop_assert_eq!(plain.middle(columns), cut.middle(columns));
            prop_assert_eq!(plain.start(columns), cut.start(columns));
        }

        #[test]
        fn any_bytes_print_safely(bytes: Vec<u8>, columns in 1_usize..60) {
            for charset in [Charset::Ascii, Charset::Printable] {
                let text = Text::new(&bytes, charset);
                prop_assert!(!text.whole().chars().any(char::is_control));
                prop_assert!(text.middle(columns).chars().count() <= columns);
                prop_assert!(text.start(columns).chars().count() <= columns);
            }
        }
    }
}
