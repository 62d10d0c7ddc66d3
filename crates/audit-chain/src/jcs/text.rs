//! Strings: their one canonical spelling, and the order of keys.

use std::cmp::Ordering;

/// Appends `text` as a JSON string, quotes included (RFC 8785 §3.2.2.2).
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Nearly all text is plain.
    if is_plain(rest) {
        out.extend_from_slice(rest);
        out.push(b'"');
        return;
    }
    while let Some(place) = rest.iter().position(|&byte| is_special(byte)) {
        let (plain, special) = rest.split_at(place);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        write_escape(out, byte);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return !text.iter().any(|&byte| is_special(byte));
    };
    // The last word overlaps the one before it where they do not come out even.
    let (words, _) = text.as_chunks::<8>();
    let special = words.iter().chain([last]).fold(0, |seen, word| {
        seen | special_bytes(u64::from_le_bytes(*word))
    });
    special == 0
}

const ONES: u64 = 0x0101_0101_0101_0101;
/// The top bit of every byte.
pub(super) const TOPS: u64 = 0x8080_8080_8080_8080;

/// Sets the top bit of every byte that is a quote, a backslash or below 0x20.
/// Above the first such byte there may be false ones (the borrow of the
/// subtraction), so only the lowest set bit counts.
#[inline]
pub(super) fn special_bytes(word: u64) -> u64 {
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    // Flipping bit 1 moves the quote from 0x22 to 0x20, just above the control
    // characters, which stay among themselves, and no other byte below 0x21:
    // one comparison finds both kinds.
    let control_or_quote = below(word ^ (ONES * 0x02), 0x21);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    (control_or_quote | backslash) & TOPS
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([byte >> 4, byte & 15].map(hex_digit));
            return;
        }
    };
    out.extend([b'\\', short]);
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}

/// Orders two keys by their UTF-16 code units (RFC 8785 §3.2.3). The keys are
/// given as written in canonical form, without their quotes. Nearly always the
/// first bytes that differ decide, because bytes, code points and code units
/// sort alike in ASCII.
pub(super) fn compare_keys(left: &[u8], right: &[u8]) -> Ordering {
    for (&a, &b) in left.iter().zip(right) {
        if a == b {
            // What follows a backslash is not the character itself.
            if a == b'\\' {
                return code_units(left).cmp(&code_units(right));
            }
        } else if is_plain_ascii(a) && is_plain_ascii(b) {
            return a.cmp(&b);
        } else {
            return code_units(left).cmp(&code_units(right));
        }
    }
    left.len().cmp(&right.len())
}

fn is_plain_ascii(byte: u8) -> bool {
    byte.is_ascii() && byte != b'\\'
}

fn code_units(key: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(key);
    let mut units = Vec::with_capacity(key.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let char = match char {
            '\\' => unescape(&mut chars),
            plain => plain,
        };
        units.extend_from_slice(char.encode_utf16(&mut [0; 2]));
    }
    units
}

fn unescape(chars: &mut std::str::Chars<'_>) -> char {
    match chars.next() {
        Some('b') => '\u{8}',
        Some('t') => '\t',
        Some('n') => '\n',
        Some('f') => '\u{c}',
        Some('r') => '\r',
        Some('u') => {
            let digits = chars.by_ref().take(4);
            let value = digits.fold(0, |sum, digit| sum * 16 + digit.to_digit(16).unwrap_or(0));
            char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        Some(itself) => itself,
        None => char::REPLACEMENT_CHARACTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, written: &str) {
        let mut out = Vec::new();
        write_string(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), written);
    }

    #[test]
    fn strings_have_one_spelling() {
        check("", r#""""#);
        check("a/b é €", "\"a/b é €\"");
        check("\u{8}\t\n\u{c}\r\"\\", r#""\b\t\n\f\r\"\\""#);
        check("\0\u{1f}\u{7f}", "\"\\u0000\\u001f\u{7f}\"");
    }

    #[test]
    fn keys_sort_by_code_units() {
        // U+1F600 is D83D DE00 in UTF-16 and so sorts before U+FB33.
        let in_order = [
            "", r"\u0001", r"\n", r"\r", "1", r"\\", "a", "\u{80}", "ö", "€", "😀", "\u{fb33}",
        ];
        for (i, left) in in_order.iter().enumerate() {
            for (j, right) in in_order.iter().enumerate() {
                let order = compare_keys(left.as_bytes(), right.as_bytes());
                assert_eq!(order, i.cmp(&j), "{left} {right}");
            }
        }
    }
}
