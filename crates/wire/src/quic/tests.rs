//! Initial packets made with the same keys that a client would have.

use super::*;
use crate::testing::tls::client_hello;
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::Version;

/// A client's Initial packet of version 1 with these CRYPTO frames.
fn initial(destination: &[u8], token: &[u8], number: u32, crypto: &[(usize, &[u8])]) -> Vec<u8> {
    let version = ([0xc3, 0, 0, 0, 1], Version::V1);
    initial_of(version, destination, token, number, crypto)
}

/// The same of another version, whose packets begin with these bytes.
fn initial_of(
    (begin, version): ([u8; 5], Version),
    destination: &[u8],
    token: &[u8],
    number: u32,
    crypto: &[(usize, &[u8])],
) -> Vec<u8> {
    let mut payload = Vec::new();
    for (offset, bytes) in crypto {
        payload.push(6);
        payload.extend((0x4000 | *offset as u16).to_be_bytes());
        payload.extend((0x4000 | bytes.len() as u16).to_be_bytes());
        payload.extend(*bytes);
    }
    payload.resize(payload.len().max(1150), 0);
    let suite = TLS13_AES_128_GCM_SHA256
        .tls13()
        .unwrap()
        .quic_suite()
        .unwrap();
    let keys = suite.keys(destination, Side::Client, version).local;
    let mut header = begin.to_vec();
    header.push(destination.len() as u8);
    header.extend(destination);
    header.push(0);
    header.push(token.len() as u8);
    header.extend(token);
    header.extend((0x4000 | (4 + payload.len() + 16) as u16).to_be_bytes());
    let number_at = header.len();
    header.extend(number.to_be_bytes());
    let tag = keys
        .packet
        .encrypt_in_place(number.into(), &header, &mut payload)
        .unwrap();
    let mut packet = [&header[..], &payload, tag.as_ref()].concat();
    let sample = packet[number_at + 4..number_at + 20].to_vec();
    let (first, rest) = packet.split_first_mut().unwrap();
    let number = &mut rest[number_at - 1..number_at + 3];
    keys.header
        .encrypt_in_place(&sample, first, number)
        .unwrap();
    packet
}

#[track_caller]
fn check(datagrams: &[Vec<u8>], sni: Option<&str>, changed: bool) {
    let mut sniff = QuicSniff::new();
    for datagram in datagrams {
        sniff.client(datagram);
    }
    let found = sniff.hello().and_then(|hello| hello.sni.as_deref());
    let version = sniff.hello().and_then(|hello| hello.quic_version);
    assert_eq!(version, found.and(Some("1")));
    assert_eq!(found, sni);
    assert_eq!(sniff.sni_changed(), changed);
}

#[test]
fn a_hello_in_shuffled_pieces_over_packets_is_read() {
    let hello = client_hello("quic.example", 1200);
    let (a, rest) = hello.split_at(300);
    let (b, c) = rest.split_at(700);
    let first = initial(&[1; 8], &[], 0, &[(300 + 700, c), (0, a)]);
    let second = initial(&[1; 8], &[], 1, &[(300, b)]);
    check(
        &[first.clone(), second.clone()],
        Some("quic.example"),
        false,
    );
    check(&[second, first.clone()], Some("quic.example"), false);
    check(&[first], None, false);
}

/// In version 2 an Initial has the number that 0-RTT has in version 1 (RFC 9369
/// section 3.2); the last draft is numbered as version 1 is.
#[test]
fn a_hello_of_each_version_is_read() {
    #[track_caller]
    fn check(version: ([u8; 5], Version), name: Option<&str>) {
        let hello = client_hello("quic.example", 1200);
        let (a, b) = hello.split_at(500);
        let mut sniff = QuicSniff::new();
        for (number, crypto) in [(1, (500, b)), (0, (0, a))] {
            sniff.client(&initial_of(version, &[5; 8], &[], number, &[crypto]));
        }
        let hello = sniff.hello();
        assert_eq!(hello.and_then(|hello| hello.quic_version), name);
        assert_eq!(hello.is_some(), name.is_some());
    }
    check(([0xc3, 0, 0, 0, 1], Version::V1), Some("1"));
    check(([0xd3, 0x6b, 0x33, 0x43, 0xcf], Version::V2), Some("2"));
    check(([0xc3, 0xff, 0, 0, 29], Version::V1Draft), Some("draft-29"));
    // Numbered as in the other version, or with the keys of another.
    check(([0xc3, 0x6b, 0x33, 0x43, 0xcf], Version::V2), None);
    check(([0xd3, 0x6b, 0x33, 0x43, 0xcf], Version::V1), None);
}

#[test]
fn data_before_the_initial_of_a_datagram_is_passed_over() {
    let hello = client_hello("quic.example", 1000);
    let early = [&[0xd0, 0, 0, 0, 1, 1, 9, 0, 5][..], b"early"].concat();
    let datagram = [early, initial(&[1; 8], &[], 0, &[(0, &hello)])].concat();
    check(&[datagram], Some("quic.example"), false);
}

#[test]
fn an_initial_after_other_datagrams_names_the_flow() {
    use crate::Direction::FromSandbox;
    use crate::testing::talk::{SERVER, datagram};
    let hello = client_hello("quic.example", 1000);
    let mut lab = crate::testing::lab::Lab::new(crate::FlowConfig::default());
    let packet = initial(&[1; 8], &[], 0, &[(0, &hello)]);
    for payload in [&b"stray"[..], &packet] {
        lab.play(&datagram(FromSandbox, 40_000, SERVER, 443, payload));
    }
    let report = &lab.finish()[0];
    assert_eq!(report.host.as_deref(), Some("quic.example"));
}

#[test]
fn after_a_retry_the_client_begins_anew_with_other_keys() {
    let hello = client_hello("retry.example", 900);
    let (a, b) = hello.split_at(400);
    let before = initial(&[1; 8], &[], 0, &[(0, a)]);
    // The server's Retry gave another connection id, and a token to send back.
    let again = [
        initial(&[9; 12], &[7; 40], 1, &[(0, a)]),
        initial(&[9; 12], &[7; 40], 2, &[(400, b)]),
    ];
    let retried = [vec![before.clone()], again.to_vec()].concat();
    check(&retried, Some("retry.example"), false);
    // One that was whole before the Retry, and names another host after it.
    let whole = initial(&[1; 8], &[], 0, &[(0, &client_hello("one.example", 32))]);
    let other = initial(
        &[9; 12],
        &[7; 40],
        1,
        &[(0, &client_hello("two.example", 32))],
    );
    check(&[whole, other], Some("one.example"), true);
    // What was damaged on its way changes nothing.
    let mut damaged = before;
    damaged[100] ^= 1;
    check(
        &[vec![damaged], retried].concat(),
        Some("retry.example"),
        false,
    );
}

#[test]
fn dns_over_quic_is_known_by_what_the_hello_offers() {
    use crate::Direction::FromSandbox;
    use crate::testing::talk::{SERVER, datagram};
    use crate::testing::tls::client_hello_offering;
    for (protocol, port, told) in [("doq", 8853, true), ("h3", 8853, false), ("h3", 853, true)] {
        let hello = client_hello_offering(&[protocol], "dns.example", 900);
        let packet = initial(&[1; 8], &[], 0, &[(0, &hello)]);
        let mut lab = crate::testing::lab::Lab::new(crate::FlowConfig::default());
        lab.play(&datagram(FromSandbox, 40_000, SERVER, port, &packet));
        let report = &lab.finish()[0];
        assert_eq!(report.host.as_deref(), Some("dns.example"));
        assert_eq!(report.findings.contains(&"dns_over_quic"), told);
    }
}
