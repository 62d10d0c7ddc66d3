//! JA4, the fingerprint of a TLS client
//! (<https://github.com/FoxIO-LLC/ja4>, the part under the 3-clause BSD licence).
//!
//! The other methods of that family are under another licence and are not here.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// What a ClientHello came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Quic,
}

/// What of a ClientHello makes its fingerprint. Reserved values
/// (GREASE, RFC 8701) are left out as they are added.
#[derive(Debug, Default)]
pub(super) struct Fingerprint {
    ciphers: Vec<u16>,
    extensions: Vec<u16>,
    signature_algorithms: Vec<u16>,
    highest_version: Option<u16>,
    first_alpn: Option<(u8, u8)>,
}

const EXT_SERVER_NAME: u16 = 0;
const EXT_ALPN: u16 = 16;
/// The two digits of a count end here.
const MAX_COUNT: usize = 99;
/// Hexadecimal digits that are kept of a digest.
const DIGITS: usize = 12;

impl Fingerprint {
    pub(super) fn cipher(&mut self, suite: u16) {
        push(&mut self.ciphers, suite);
    }

    pub(super) fn extension(&mut self, kind: u16) {
        push(&mut self.extensions, kind);
    }

    pub(super) fn signature_algorithm(&mut self, scheme: u16) {
        push(&mut self.signature_algorithms, scheme);
    }

    /// A version in the supported_versions extension.
    pub(super) fn supported_version(&mut self, version: u16) {
        if !is_grease(version) {
            self.highest_version = self.highest_version.max(Some(version));
        }
    }

    /// A protocol of the ALPN extension, in its order.
    pub(super) fn alpn(&mut self, protocol: &[u8]) {
        if let (None, [first, ..], [.., last]) = (self.first_alpn, protocol, protocol) {
            self.first_alpn = Some((*first, *last));
        }
    }

    /// The fingerprint: `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    pub(super) fn finish(mut self, transport: Transport, legacy_version: u16) -> String {
        let transport = match transport {
            Transport::Tcp => 't',
            Transport::Quic => 'q',
        };
        let version = version_digits(self.highest_version.unwrap_or(legacy_version));
        let named = if self.extensions.contains(&EXT_SERVER_NAME) {
            'd'
        } else {
            'i'
        };
        let ciphers = self.ciphers.len().min(MAX_COUNT);
        let extensions = self.extensions.len().min(MAX_COUNT);
        let (first, last) = self.first_alpn.unwrap_or((b'0', b'0'));
        let [first, last] = [first, last].map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte),
            _ => '9',
        });
        self.ciphers.sort_unstable();
        self.extensions
            .retain(|kind| ![EXT_SERVER_NAME, EXT_ALPN].contains(kind));
        self.extensions.sort_unstable();
        let offered = digest(&hex(&self.ciphers));
        let mut rest = hex(&self.extensions);
        if !self.signature_algorithms.is_empty() {
            rest.push('_');
            rest.push_str(&hex(&self.signature_algorithms));
        }
        let extended = digest(&rest);
        format!(
            "{transport}{version}{named}{ciphers:02}{extensions:02}{first}{last}_{offered}_{extended}"
        )
    }
}

fn push(values: &mut Vec<u16>, value: u16) {
    if !is_grease(value) {
        values.push(value);
    }
}

const fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

const fn version_digits(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

fn hex(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for value in values {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "{value:04x}");
    }
    text
}

fn digest(text: &str) -> String {
    let mut digits = String::with_capacity(DIGITS);
    if text.is_empty() {
        digits.extend(std::iter::repeat_n('0', DIGITS));
        return digits;
    }
    for byte in Sha256::digest(text.as_bytes()).iter().take(DIGITS / 2) {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
