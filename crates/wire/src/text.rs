//! Bytes of the guest as text that is safe to write down.

/// Printable ASCII as it is, anything else and the backslash as `\DDD`
/// (RFC 1035 section 5.1), so that different bytes stay different.
pub(crate) fn push_escaped(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' {
            out.push(char::from(byte));
        } else {
            out.push('\\');
            for digit in [byte / 100, byte / 10 % 10, byte % 10] {
                out.push(char::from(b'0' + digit));
            }
        }
    }
}

/// [`push_escaped`], but with spaces as they are and commas as `\044`, of at
/// most `max` bytes; the rest is left out and marked so.
pub(crate) fn phrase(bytes: &[u8], max: usize) -> String {
    let mut out = String::new();
    let kept = bytes.get(..max).unwrap_or(bytes);
    for part in kept.split_inclusive(|byte| matches!(byte, b' ' | b',')) {
        match part.split_last() {
            Some((b' ', words)) => {
                push_escaped(&mut out, words);
                out.push(' ');
            }
            Some((b',', words)) => {
                push_escaped(&mut out, words);
                out.push_str("\\044");
            }
            _ => push_escaped(&mut out, part),
        }
    }
    if bytes.len() > max {
        out.push(CUT);
    }
    out
}

/// [`push_escaped`] into a new string.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    push_escaped(&mut out, bytes);
    out
}

/// Longest name of a host in bytes (RFC 1035 section 2.3.4).
pub(crate) const MAX_HOST: usize = 255;
/// Stands where the rest of a text was left out; escaped text never has it.
const CUT: char = '…';

/// [`escaped`], of at most `max` bytes; the rest is left out and marked so.
pub(crate) fn escaped_prefix(bytes: &[u8], max: usize) -> String {
    let mut out = escaped(bytes.get(..max).unwrap_or(bytes));
    if bytes.len() > max {
        out.push(CUT);
    }
    out
}

/// Marks a text of which a part is left out.
pub(crate) fn mark_cut(text: &mut String) {
    text.push(CUT);
}

/// Whether a part of a text was left out.
pub(crate) fn is_cut(text: &str) -> bool {
    text.ends_with(CUT)
}

/// A host name as it is compared and recorded: lower case, no trailing dot.
/// One that is longer than names can be is cut, and so equals no other.
pub(crate) fn host_name(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let mut name = escaped_prefix(bytes, MAX_HOST);
    name.make_ascii_lowercase();
    name
}

/// Whether [`host_name`] of these bytes is this.
pub(crate) fn is_host_name(bytes: &[u8], name: &str) -> bool {
    let plain = bytes.strip_suffix(b".").unwrap_or(bytes);
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'\\';
    if plain.len() > MAX_HOST || !plain.iter().all(is_plain) {
        return host_name(bytes) == name;
    }
    let lower = plain.iter().map(u8::to_ascii_lowercase);
    plain.len() == name.len() && lower.eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_names_are_lowered_and_escaped() {
        #[track_caller]
        fn check(bytes: &[u8], expected: &str) {
            assert_eq!(host_name(bytes), expected);
        }
        check(b"API.Stripe.com.", "api.stripe.com");
        check(b"a b\\c", "a\\032b\\092c");
        check(b"\x1b[31m\xff", "\\027[31m\\255");
        check(b"", "");
        check(&[b'A'; 255], &"a".repeat(255));
        check(&[0xff; 60_000], &format!("{}…", "\\255".repeat(255)));
    }

    proptest! {
        #[test]
        fn a_host_name_is_told_without_writing_it(
            bytes in "[aA.é\\\\ ]{0,6}|A{250,260}",
            other in "[a.]{0,6}|a{250,260}",
        ) {
            for name in [host_name(bytes.as_bytes()), other] {
                let is_it = host_name(bytes.as_bytes()) == name;
                prop_assert_eq!(is_host_name(bytes.as_bytes(), &name), is_it);
            }
        }
    }
}
