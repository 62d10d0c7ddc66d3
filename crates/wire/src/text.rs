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

/// [`push_escaped`] into a new string.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    push_escaped(&mut out, bytes);
    out
}

/// A host name as it is compared and recorded: lower case, no trailing dot.
pub(crate) fn host_name(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    escaped(&bytes.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
