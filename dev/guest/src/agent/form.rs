//! Bodies of the type application/x-www-form-urlencoded
//! (URL standard, section 5.2: <https://url.spec.whatwg.org/#urlencoded-serializing>).

use std::fmt::Write;

/// The fields in their order, names and values encoded.
pub(super) fn encode(fields: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        push(&mut out, name);
        out.push('=');
        push(&mut out, value);
    }
    out
}

fn push(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            // Writing to a String cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes() {
        assert_eq!(
            encode(&[("amount", "4200"), ("metadata[note]", "a b\n/=é")]),
            "amount=4200&metadata%5Bnote%5D=a+b%0A%2F%3D%C3%A9"
        );
        assert_eq!(encode(&[]), "");
    }
}
