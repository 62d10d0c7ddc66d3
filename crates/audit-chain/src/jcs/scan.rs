//! One strict pass over bytes that claim to be canonical JSON.

use super::MAX_DEPTH;
use super::text::{TOPS, compare_keys, special_bytes};
use sandtrace_event::MAX_SAFE_INTEGER;
use std::cmp::Ordering;

/// In what way bytes are not canonical JSON of this trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Flaw {
    /// The bytes end inside of a value.
    #[error("the text ends too early")]
    End,
    /// A byte that cannot stand here.
    #[error("unexpected byte 0x{0:02x}")]
    Unexpected(u8),
    /// White space outside of a string.
    #[error("white space between tokens")]
    WhiteSpace,
    /// U+0000 to U+001F, unescaped in a string.
    #[error("unescaped control character")]
    ControlCharacter,
    /// An escape where the character itself, or a shorter escape, belongs.
    #[error("escape sequence that is not the canonical one")]
    Escape,
    /// A fraction, an exponent, a leading zero, or minus zero.
    #[error("number that is not a canonical integer")]
    Number,
    /// An integer beyond ±(2^53 − 1).
    #[error("integer beyond 2^53 - 1")]
    NumberRange,
    /// A key that sorts before the one in front of it.
    #[error("keys out of order")]
    KeyOrder,
    /// The same key twice in one object.
    #[error("duplicate key")]
    DuplicateKey,
    /// More than [`MAX_DEPTH`] objects and arrays inside of each other.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Bytes after the end of the value.
    #[error("bytes after the end of the value")]
    Trailing,
    /// Bytes that are not UTF-8.
    #[error("not UTF-8")]
    Utf8,
}

/// Where and how bytes are not canonical JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flaw} at byte {at}")]
pub struct NotCanonical {
    /// Offset of the first bad byte.
    pub at: usize,
    /// What is wrong there.
    pub flaw: Flaw,
}

/// Accepts exactly one JSON value in canonical form with integers only.
///
/// # Errors
/// The first flaw. UTF-8 is checked string by string, at its end.
pub fn check(bytes: &[u8]) -> Result<(), NotCanonical> {
    let mut scanner = Scanner::new(bytes);
    scanner
        .value(1)
        .and_then(|()| scanner.end())
        .map_err(|flaw| scanner.locate(flaw))
}

/// A cursor over bytes. After an error it stands at the flaw.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn locate(&self, flaw: Flaw) -> NotCanonical {
        NotCanonical { at: self.at, flaw }
    }

    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    pub(crate) fn end(&self) -> Result<(), Flaw> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Flaw::Trailing)
        }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Result<u8, Flaw> {
        self.bytes.get(self.at).copied().ok_or(Flaw::End)
    }

    #[inline]
    fn byte(&mut self, wanted: u8) -> Result<(), Flaw> {
        match self.peek()? {
            byte if byte == wanted => {
                self.at += 1;
                Ok(())
            }
            byte => Err(unexpected(byte)),
        }
    }

    /// Takes exactly these bytes.
    #[inline]
    pub(crate) fn literal<const N: usize>(&mut self, wanted: &[u8; N]) -> Result<(), Flaw> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.first_chunk() == Some(wanted) {
            self.at += N;
            return Ok(());
        }
        self.literal_flaw(rest, wanted)
    }

    #[cold]
    fn literal_flaw(&mut self, rest: &[u8], wanted: &[u8]) -> Result<(), Flaw> {
        let same = rest.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        self.at += same;
        Err(self.peek().map_or_else(|end| end, unexpected))
    }

    /// Takes a value; `depth` is that of an object or array which begins here.
    pub(crate) fn value(&mut self, depth: usize) -> Result<(), Flaw> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'-' | b'0'..=b'9' => self.integer().map(drop),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            byte => Err(unexpected(byte)),
        }
    }

    pub(crate) fn object(&mut self, depth: usize) -> Result<(), Flaw> {
        if depth > MAX_DEPTH {
            return Err(Flaw::TooDeep);
        }
        self.byte(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        let mut previous = None;
        loop {
            let key_at = self.at;
            let key = self.string()?;
            if let Some(flaw) = previous.and_then(|previous| order_flaw(previous, key)) {
                self.at = key_at;
                return Err(flaw);
            }
            previous = Some(key);
            self.byte(b':')?;
            self.value(depth + 1)?;
            if self.ends_with(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Flaw> {
        if depth > MAX_DEPTH {
            return Err(Flaw::TooDeep);
        }
        self.byte(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.ends_with(b']')? {
                return Ok(());
            }
        }
    }

    /// Takes a comma (false) or the closing bracket (true).
    #[inline]
    fn ends_with(&mut self, close: u8) -> Result<bool, Flaw> {
        let byte = self.peek()?;
        if byte != b',' && byte != close {
            return Err(unexpected(byte));
        }
        self.at += 1;
        Ok(byte == close)
    }

    /// Takes a string and gives it as written, without its quotes.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Flaw> {
        self.byte(b'"')?;
        let start = self.at;
        match self.rest_of_string(start) {
            Err(Flaw::End) => Err(self.cut_off(start)),
            other => other,
        }
    }

    #[inline]
    fn rest_of_string(&mut self, start: usize) -> Result<&'a [u8], Flaw> {
        let mut is_ascii = true;
        loop {
            is_ascii &= self.skip_plain();
            match self.peek()? {
                b'"' => {
                    let written = self.since(start);
                    if !is_ascii {
                        self.check_utf8(start)?;
                    }
                    self.at += 1;
                    return Ok(written);
                }
                b'\\' => self.escape()?,
                _ => return Err(Flaw::ControlCharacter),
            }
        }
    }

    #[cold]
    fn check_utf8(&mut self, start: usize) -> Result<(), Flaw> {
        match std::str::from_utf8(self.since(start)) {
            Ok(_) => Ok(()),
            Err(error) => self.refuse(start + error.valid_up_to(), Flaw::Utf8),
        }
    }

    /// The flaw of a string that the end of the bytes cuts off, maybe inside
    /// of a character.
    #[cold]
    fn cut_off(&mut self, start: usize) -> Flaw {
        match std::str::from_utf8(self.since(start)) {
            Err(error) if error.error_len().is_some() => {
                self.at = start + error.valid_up_to();
                Flaw::Utf8
            }
            _ => Flaw::End,
        }
    }

    /// Takes a string that most likely has `length` bytes and no escape; the
    /// caller must check that none of the bytes it gets is special.
    #[inline]
    pub(crate) fn string_of(&mut self, length: usize) -> Result<&'a [u8], Flaw> {
        let begin = self.at.saturating_add(1);
        let end = begin.saturating_add(length);
        let text = self.bytes.get(begin..end);
        match (self.peek(), text, self.bytes.get(end)) {
            (Ok(b'"'), Some(text), Some(b'"')) => {
                self.at = end.saturating_add(1);
                Ok(text)
            }
            _ => self.string(),
        }
    }

    /// Moves to the next quote, backslash or control character, eight bytes a
    /// step. False where there may be a byte that is not ASCII on the way.
    #[inline]
    fn skip_plain(&mut self) -> bool {
        let mut seen = 0;
        while let Some(chunk) = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<8>())
        {
            let word = u64::from_le_bytes(*chunk);
            seen |= word;
            let special = special_bytes(word);
            if special != 0 {
                self.at += usize::try_from(special.trailing_zeros() / 8).unwrap_or(0);
                return seen & TOPS == 0;
            }
            self.at += 8;
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte < 0x20 || byte == b'"' || byte == b'\\' {
                break;
            }
            seen |= u64::from(byte);
            self.at += 1;
        }
        seen & TOPS == 0
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        self.byte(b'\\')?;
        match self.peek()? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                return Ok(());
            }
            b'u' => self.at += 1,
            _ => return self.refuse(start, Flaw::Escape),
        }
        // What is left is \u00XX, XX below 0x20 and without a short form.
        let mut digits = [0; 4];
        for digit in &mut digits {
            *digit = self.peek()?;
            self.at += 1;
        }
        match digits {
            [b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f']
            | [b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f'] => Ok(()),
            _ => self.refuse(start, Flaw::Escape),
        }
    }

    /// Takes an integer.
    #[inline]
    pub(crate) fn integer(&mut self) -> Result<i64, Flaw> {
        let start = self.at;
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let digits_at = self.at;
        let mut value: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            value = value
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let zero_first = self.since(digits_at).first().copied();
        let digits = self.at - digits_at;
        match zero_first {
            None => return Err(self.peek().map_or_else(|end| end, |_| Flaw::Number)),
            Some(b'0') if negative || digits > 1 => return self.refuse(start, Flaw::Number),
            Some(_) => {}
        }
        if let Some(b'.' | b'e' | b'E') = self.bytes.get(self.at) {
            return self.refuse(start, Flaw::Number);
        }
        match i64::try_from(value) {
            Ok(magnitude) if value <= MAX_SAFE_INTEGER => {
                Ok(if negative { -magnitude } else { magnitude })
            }
            _ => self.refuse(start, Flaw::NumberRange),
        }
    }

    fn refuse<T>(&mut self, at: usize, flaw: Flaw) -> Result<T, Flaw> {
        self.at = at;
        Err(flaw)
    }
}

fn unexpected(byte: u8) -> Flaw {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' => Flaw::WhiteSpace,
        byte => Flaw::Unexpected(byte),
    }
}

fn order_flaw(previous: &[u8], key: &[u8]) -> Option<Flaw> {
    match compare_keys(previous, key) {
        Ordering::Less => None,
        Ordering::Equal => Some(Flaw::DuplicateKey),
        Ordering::Greater => Some(Flaw::KeyOrder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, at: usize, flaw: Flaw) {
        assert_eq!(
            check(text.as_bytes()),
            Err(NotCanonical { at, flaw }),
            "{text}"
        );
    }

    #[test]
    fn canonical_texts_are_accepted() {
        let texts = [
            "null",
            "[]",
            "{}",
            r#"{"a":[1,-2,0,9007199254740991,-9007199254740991],"b":{"":""}}"#,
            r#""\b\t\n\f\r\"\\\u0000\u000b\u001f/é""#,
            "\"\u{7f}\u{2028}😀\"",
            r#"{"\n":1,"a":true,"é":false,"😀":1,"ﬀ":null}"#,
        ];
        for text in texts {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        refused("", 0, Flaw::End);
        refused("[1,", 3, Flaw::End);
        refused("-", 1, Flaw::End);
        refused("\"abc", 4, Flaw::End);
        refused("tru", 3, Flaw::End);
        refused("trye", 2, Flaw::Unexpected(b'y'));
        refused(" 1", 0, Flaw::WhiteSpace);
        refused("[1, 2]", 3, Flaw::WhiteSpace);
        refused("{}\n", 2, Flaw::Trailing);
        refused("\u{feff}{}", 0, Flaw::Unexpected(0xef));
        refused("[,]", 1, Flaw::Unexpected(b','));
        refused("[1e3]", 1, Flaw::Number);
        refused("[1.0]", 1, Flaw::Number);
        refused("[-0]", 1, Flaw::Number);
        refused("[01]", 1, Flaw::Number);
        refused("-a", 1, Flaw::Number);
        refused("9007199254740992", 0, Flaw::NumberRange);
        refused("-99999999999999999999999999", 0, Flaw::NumberRange);
        refused(r#"{"b":1,"a":2}"#, 7, Flaw::KeyOrder);
        refused(r#"{"a":1,"a":2}"#, 7, Flaw::DuplicateKey);
        refused("{\"ﬀ\":1,\"😀\":2}", 9, Flaw::KeyOrder);
        refused("\"a\tb\"", 2, Flaw::ControlCharacter);
        refused("\"0123456789\u{1}\"", 11, Flaw::ControlCharacter);
    }

    #[test]
    fn long_escapes_are_refused() {
        let escapes = [
            r"\/",
            r"\u0041",
            r"\u000a",
            r"\u001F",
            r"\u00e9",
            r"\ud83d\ude00",
            r"\x",
        ];
        for escape in escapes {
            refused(&format!("\"{escape}\""), 1, Flaw::Escape);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(nested(MAX_DEPTH).as_bytes()), Ok(()));
        refused(&nested(MAX_DEPTH + 1), MAX_DEPTH, Flaw::TooDeep);
        refused(&nested(100_000), MAX_DEPTH, Flaw::TooDeep);
    }

    #[test]
    fn bytes_must_be_utf8() {
        let at = |bytes: &[u8]| check(bytes).unwrap_err();
        assert_eq!(at(b"\"\xff\"").flaw, Flaw::Utf8);
        assert_eq!(at(b"\"\xed\xa0\x80\"").flaw, Flaw::Utf8);
        assert_eq!(at(b"[\xff").flaw, Flaw::Unexpected(0xff));
        assert_eq!(at(b"\"0123456789\xc3\"").at, 11);
        assert_eq!(at(b"\"\xc3").flaw, Flaw::End);
        assert_eq!(at(b"\"\xff").flaw, Flaw::Utf8);
        assert_eq!(at(b"\"\xc3\xa9\xff\\u0").flaw, Flaw::Utf8);
    }

    #[test]
    fn every_special_byte_is_found_at_every_place() {
        for byte in 0..=255_u8 {
            for place in 0..8 {
                let mut chunk = *b"abcdefg\xff";
                chunk[place] = byte;
                let found = special_bytes(u64::from_le_bytes(chunk));
                let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                let expected = if special { place * 8 + 7 } else { 64 };
                assert_eq!(found.trailing_zeros() as usize, expected, "{byte} {place}");
            }
        }
    }
}
