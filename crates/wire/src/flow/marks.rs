//! What cannot be read: DNS inside other protocols, encrypted tunnels.

use crate::claims::Claim;
use crate::findings::{Finding, Findings};
use crate::frame::Frame;
use crate::http::HttpFacts;
use crate::key::FlowKey;
use crate::names::{NameEvidence, NameSource};
use crate::text::is_cut;
use crate::tls::TlsFacts;
use crate::view::Protocol;
use std::net::IpAddr;

const ENCRYPTED_DNS_PORT: u16 = 853;
const HTTPS_PORTS: [u16; 2] = [443, 8443];

/// What the port of a flow says.
pub(crate) fn by_port(key: &FlowKey) -> Findings {
    let mut findings = Findings::default();
    if key.peer().port == Some(ENCRYPTED_DNS_PORT) {
        match key.protocol {
            Protocol::Tcp => findings.insert(Finding::DnsOverTls),
            Protocol::Udp => findings.insert(Finding::DnsOverQuic),
            _ => false,
        };
    }
    findings
}

/// Whether a datagram is a handshake initiation of WireGuard (its white paper,
/// section 5.4.2): type 1, three zeros, and no other length.
pub(crate) fn begins_wireguard(key: &FlowKey, frame: &Frame<'_>) -> bool {
    key.protocol == Protocol::Udp
        && frame.payload_len == 148
        && frame.payload.starts_with(&[1, 0, 0, 0])
}

/// What a claim is that no DNS answer for the peer's address backs. A request
/// may name that address itself, for which nobody asks.
pub(crate) fn not_in_dns(claim: &NameEvidence, peer: Option<IpAddr>) -> Findings {
    let finding = match claim.source {
        NameSource::TlsSni | NameSource::QuicSni => Some(Finding::SniNotInDns),
        NameSource::HttpHost | NameSource::SocksHost
            if peer.is_none() || claim.name.parse().ok() != peer =>
        {
            Some(Finding::HostNotInDns)
        }
        _ => None,
    };
    finding.into_iter().collect()
}

/// What the peer's name and address and the hello or request say.
pub(crate) fn by_content(
    key: &FlowKey,
    host: Option<&str>,
    claims: &[Claim],
    tls: Option<&TlsFacts>,
    http: Option<&HttpFacts>,
) -> Findings {
    let mut findings = Findings::default();
    let offers = |word: &str| tls.is_some_and(|tls| tls.alpn.iter().any(|it| it == word));
    if offers("dot") {
        findings.insert(Finding::DnsOverTls);
    }
    if offers("doq") {
        findings.insert(Finding::DnsOverQuic);
    }
    let claimed = || claims.iter().map(|claim| &*claim.name);
    if claimed().any(is_cut) {
        findings.insert(Finding::NameTooLong);
    }
    let peer = key.peer();
    let is_known = peer.port.is_some_and(|port| HTTPS_PORTS.contains(&port))
        && (claimed().chain(host).any(is_service)
            || peer.ip.is_some_and(|ip| ADDRESSES.contains(&ip)));
    let asks = http.is_some_and(|http| http.path.starts_with("/dns-query"));
    if is_known || asks {
        findings.insert(Finding::DnsOverHttps);
    }
    findings
}

fn is_service(host: &str) -> bool {
    NAMES.iter().any(|name| {
        host.strip_suffix(name)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Public services of DNS over HTTPS, as their operators publish them.
const NAMES: [&str; 14] = [
    "cloudflare-dns.com",
    "dns.adguard-dns.com",
    "dns.alidns.com",
    "dns.controld.com",
    "dns.google",
    "dns.mullvad.net",
    "dns.nextdns.io",
    "dns.quad9.net",
    "dns0.eu",
    "doh.cleanbrowsing.org",
    "doh.opendns.com",
    "doh.pub",
    "mask.icloud.com",
    "one.one.one.one",
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d))
}

const fn v6(a: u16, b: u16, c: u16, g: u16, h: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, g, h))
}

/// Addresses of such services that are asked without a name.
const ADDRESSES: [IpAddr; 18] = [
    v4(1, 0, 0, 1),
    v4(1, 1, 1, 1),
    v4(8, 8, 4, 4),
    v4(8, 8, 8, 8),
    v4(9, 9, 9, 9),
    v4(94, 140, 14, 14),
    v4(149, 112, 112, 112),
    v4(208, 67, 222, 222),
    v6(0x2001, 0x4860, 0x4860, 0, 0x8844),
    v6(0x2001, 0x4860, 0x4860, 0, 0x8888),
    v6(0x2606, 0x4700, 0x4700, 0, 0x1001),
    v6(0x2606, 0x4700, 0x4700, 0, 0x1111),
    v6(0x2620, 0x00fe, 0, 0, 0x0009),
    v6(0x2620, 0x00fe, 0, 0, 0x00fe),
    v6(0x2620, 0x0119, 0x0035, 0, 0x0035),
    v6(0x2620, 0x0119, 0x0053, 0, 0x0053),
    v6(0x2a10, 0x50c0, 0, 0x0ad1, 0x00ff),
    v6(0x2a10, 0x50c0, 0, 0x0ad2, 0x00ff),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_addresses_of_both_kinds() {
        for (address, known) in [
            ("8.8.8.8", true),
            ("2606:4700:4700::1111", true),
            ("2620:fe::9", true),
            ("2a10:50c0::ad1:ff", true),
            ("2a10:50c0::1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(ADDRESSES.contains(&address), known, "{address}");
        }
    }
}
