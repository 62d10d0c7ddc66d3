//! Words of a reason that are safe to show to a person.

use sandtrace_event::{Flow, Protocol};
use std::fmt;
use std::net::IpAddr;

/// Longest guest-chosen text within a reason, in characters.
const MAX_SHOWN: usize = 256;

/// Text that the guest chose: control characters and characters that change
/// the direction of text are escaped, and the length is bounded.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nearly all text is plain; this is on the way of every verdict.
        let plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if self.0.len() <= MAX_SHOWN && self.0.bytes().all(plain) {
            return f.write_str(self.0);
        }
        let mut characters = self.0.chars();
        for c in characters.by_ref().take(MAX_SHOWN) {
            if c.is_control() || is_format(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        match characters.next() {
            Some(_) => f.write_str("…"),
            None => Ok(()),
        }
    }
}

/// Characters without a glyph that change how others are shown (Unicode
/// general category Cf, those in use, and line separators).
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A number with a comma between its thousands: 5,012.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `api.stripe.com:443`, `[2001:db8::1]:443`, `192.0.2.1 (icmp)`.
pub(super) fn endpoint(host: &str, flow: &Flow) -> String {
    let ipv6 = host.contains(':') && host.parse::<IpAddr>().is_ok();
    match flow.dst_port {
        Some(port) if ipv6 => format!("[{host}]:{port}"),
        Some(port) => format!("{}:{port}", Shown(host)),
        None => format!("{} ({})", Shown(host), protocol(flow)),
    }
}

pub(super) fn protocol(flow: &Flow) -> String {
    match flow.protocol {
        Protocol::Tcp => "tcp".to_owned(),
        Protocol::Udp => "udp".to_owned(),
        Protocol::Icmp => "icmp".to_owned(),
        Protocol::Icmpv6 => "icmpv6".to_owned(),
        Protocol::Arp => "arp".to_owned(),
        Protocol::Ip => match flow.ip_protocol {
            Some(number) => format!("IP protocol {number}"),
            None => "another IP protocol".to_owned(),
        },
        Protocol::Ethernet => match flow.ether_type {
            Some(number) => format!("EtherType {number:#06x}"),
            None => "not IP".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let table = [
            (0, "0"),
            (999, "999"),
            (5_012, "5,012"),
            (1_000_000, "1,000,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (number, text) in table {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn guest_text_is_escaped_and_bounded() {
        assert_eq!(
            Shown("/tmp/\u{1b}[31m\n\u{202e}é").to_string(),
            "/tmp/\\u{1b}[31m\\n\\u{202e}é"
        );
        assert_eq!(
            Shown(&"x".repeat(9_999)).to_string().chars().count(),
            MAX_SHOWN + 1
        );
    }
}
