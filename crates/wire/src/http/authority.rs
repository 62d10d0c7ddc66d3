//! Which host the authority of a request is (RFC 9112 section 3.2).

use crate::text;
use std::net::Ipv6Addr;

/// Names that are taken out of one that is malformed.
const MAX_PARTS: usize = 4;

/// The hosts that a request names, the one that counts first.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) names: Vec<String>,
    /// They are several, or one is written so that servers read it differently.
    pub(super) ambiguous: bool,
}

impl Hosts {
    /// Adds what a target's authority or a Host header says.
    pub(super) fn add(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        let Some(host) = plain(value) else {
            self.ambiguous = true;
            let parts = value.split(|byte| is_delimiter(*byte) || *byte == b':');
            // A port is no host.
            let named = parts.filter(|part| !part.iter().all(u8::is_ascii_digit));
            for part in named.take(MAX_PARTS) {
                self.name(part);
            }
            return;
        };
        self.name(host);
    }

    fn name(&mut self, host: &[u8]) {
        let name = text::host_name(host);
        if name.is_empty() || self.names.contains(&name) {
            return;
        }
        self.ambiguous |= !self.names.is_empty();
        if self.names.len() < 2 * MAX_PARTS {
            self.names.push(name);
        }
    }
}

/// The host of a well-formed authority without user information.
fn plain(authority: &[u8]) -> Option<&[u8]> {
    if is_ipv6(authority) {
        // The brackets are often forgotten.
        return Some(authority);
    }
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(inner) => {
            let end = inner.iter().position(|byte| *byte == b']')?;
            let (host, port) = inner.split_at_checked(end)?;
            (is_ipv6(host).then_some(host)?, port.strip_prefix(b"]")?)
        }
        None => {
            let is_colon = |byte: &u8| *byte == b':';
            let end = authority.iter().position(is_colon);
            authority.split_at_checked(end.unwrap_or(authority.len()))?
        }
    };
    let digits = port.strip_prefix(b":").unwrap_or(port);
    let is_plain =
        digits.iter().all(u8::is_ascii_digit) && !host.iter().any(|byte| is_delimiter(*byte));
    is_plain.then_some(host)
}

fn is_ipv6(host: &[u8]) -> bool {
    let address = str::from_utf8(host).unwrap_or_default();
    address.parse::<Ipv6Addr>().is_ok()
}

/// What no host has in it, and at which servers may end one.
const fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_control()
        || matches!(
            byte,
            b' ' | b',' | b';' | b'/' | b'\\' | b'@' | b'[' | b']' | b'?' | b'#' | b'%'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_in_its_form_is_not_ambiguous() {
        #[track_caller]
        fn check(value: &str, names: &[&str]) {
            let mut hosts = Hosts::default();
            for _ in 0..2 {
                hosts.add(value.as_bytes());
            }
            assert_eq!(hosts.names, names);
            assert!(!hosts.ambiguous, "{value}");
        }
        check("A.example.", &["a.example"]);
        check(" a_b.example:8080 ", &["a_b.example"]);
        check("a.example:", &["a.example"]);
        check("[2001:db8::1]:80", &["2001:db8::1"]);
        check("2001:db8::1", &["2001:db8::1"]);
        check("192.0.2.1:80", &["192.0.2.1"]);
        check("", &[]);
    }

    #[test]
    fn every_host_that_a_server_may_read_is_named() {
        #[track_caller]
        fn check(value: &[u8], names: &[&str]) {
            let mut hosts = Hosts::default();
            hosts.add(value);
            assert_eq!(hosts.names, names);
            assert!(hosts.ambiguous, "{value:?}");
        }
        check(b"[a.example]b.example", &["a.example", "b.example"]);
        check(b"a.example:80@b.example", &["a.example", "b.example"]);
        check(b"a.example, b.example:80", &["a.example", "b.example"]);
        check(b"a.example\0.b.example", &["a.example", ".b.example"]);
        check(b"a.example:b.example", &["a.example", "b.example"]);
        check(b"a.example/@80", &["a.example"]);
        let many = b"a b c d e f g";
        check(many, &["a", "b", "c", "d"]);
    }
}
