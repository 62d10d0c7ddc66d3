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
    version: ([u8; 5], Version),
    destination: &[u8],
    token: &[u8],
    number: u32,
    crypto: &[(usize, &[u8])],
) -> Vec<u8> {
    let mut payload: Vec<u8> = crypto
        .iter()
        .flat_map(|(offset, bytes)| crypto_frame(*offset, bytes))
        .collect();
    payload.resize(payload.len().max(1150), 0);
    sealed(version, destination, token, number, payload)
}

fn crypto_frame(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let numbers = [offset, bytes.len()].map(|it| (0x8000_0000 | it as u32).to_be_bytes());
    [&[6][..], &numbers.concat(), bytes].concat()
}

/// An Initial packet with these frames.
fn sealed(
    (begin, version): ([u8; 5], Version),
    destination: &[u8],
    token: &[u8],
    number: u32,
    mut payload: Vec<u8>,
) -> Vec<u8> {
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

const V1: ([u8; 5], Version) = ([0xc3, 0, 0, 0, 1], Version::V1);

/// What the reading of these datagrams calls odd.
#[track_caller]
fn check_odd(datagrams: &[&[u8]], changed: bool, inconsistent: bool, unread: bool) {
    let mut sniff = QuicSniff::new();
    for datagram in datagrams {
        sniff.client(datagram);
    }
    let found = (
        sniff.sni_changed(),
        sniff.is_inconsistent(),
        sniff.is_unread(),
    );
    assert_eq!(found, (changed, inconsistent, unread));
}

/// An Initial packet of nobody's keys.
fn junk(destination: &[u8]) -> Vec<u8> {
    let head = [0xc0, 0, 0, 0, 1, destination.len() as u8];
    [&head[..], destination, &[0, 0, 24], &[7; 24]].concat()
}

#[test]
fn another_hello_after_any_number_of_packets_is_read() {
    let good = initial(&[1; 8], &[], 0, &[(0, &client_hello("good.example", 32))]);
    let evil = initial(&[2; 8], &[], 0, &[(0, &client_hello("evil.example", 32))]);
    let ping = |number| sealed(V1, &[1; 8], &[], number, vec![1; 20]);
    let pings: Vec<_> = (1..100).map(ping).collect();
    let mut datagrams: Vec<&[u8]> = pings.iter().map(Vec::as_slice).collect();
    datagrams.insert(0, &good);
    check_odd(&datagrams, false, false, false);
    datagrams.push(&evil);
    check_odd(&datagrams, true, false, false);
}

#[test]
fn packets_that_do_not_open_hide_nothing() {
    let good = initial(&[1; 8], &[], 0, &[(0, &client_hello("good.example", 32))]);
    let evil = initial(&[2; 8], &[], 0, &[(0, &client_hello("evil.example", 32))]);
    let junk = |ids: std::ops::Range<u8>| ids.flat_map(|id| junk(&[id; 8])).collect::<Vec<u8>>();
    let lost = [junk(10..12), evil.clone()].concat();
    check_odd(&[&good, &lost], true, false, false);
    // Of one connection id, as after the first packets were not captured.
    let same = [junk(10..11), junk(10..11), junk(10..11), junk(10..11)].concat();
    check_odd(&[&good, &same, &same], false, false, false);
    // Who sends more of them in one datagram is not followed, and that is told.
    check_odd(
        &[&good, &[junk(10..13), evil.clone()].concat()],
        false,
        false,
        true,
    );
    // The first connection goes on after another one began, or after so many that
    // its keys are gone.
    let whole = client_hello("evil.example", 32);
    let (start, end) = whole.split_at(60);
    let start = initial(&[1; 8], &[], 0, &[(0, start)]);
    let end = initial(&[1; 8], &[], 1, &[(60, end)]);
    let good = initial(&[2; 8], &[], 0, &[(0, &client_hello("good.example", 32))]);
    check_odd(&[&start, &good, &end], true, false, false);
    let others = [3, 4].map(|id| initial(&[id; 8], &[], 0, &[]));
    let mut damaged = end;
    damaged[60] ^= 1;
    check_odd(&[&start, &good, &others[0], &damaged], false, false, false);
    let many = [&start[..], &good, &others[0], &others[1], &damaged];
    check_odd(&many, false, false, true);
}

#[test]
fn what_is_odd_about_one_connection_stays_so_when_another_begins() {
    let (good, evil) = (
        client_hello("good.example", 32),
        client_hello("evil.example", 32),
    );
    let first = initial(&[1; 8], &[], 0, &[(0, &good)]);
    let conflict = initial(&[1; 8], &[], 1, &[(0, &evil)]);
    let another = initial(&[3; 8], &[], 0, &[]);
    check_odd(&[&first, &[conflict, another].concat()], false, true, false);
}

#[test]
fn every_message_of_the_client_is_read() {
    let hello = client_hello("good.example", 32);
    let first = initial(&[1; 8], &[], 0, &[(0, &hello)]);
    let then = |more: &[u8]| initial(&[1; 8], &[], 1, &[(hello.len(), more)]);
    // After the server asked for another hello.
    check_odd(&[&first, &then(&hello)], false, false, false);
    check_odd(
        &[&first, &then(&client_hello("evil.example", 32))],
        true,
        false,
        false,
    );
    // One that clients do not send, and more than is read.
    check_odd(&[&first, &then(&[20, 0, 0, 1, 0])], false, false, true);
    let far = initial(&[1; 8], &[], 1, &[(MAX_CRYPTO, &hello)]);
    check_odd(&[&first, &far], false, false, true);
}

#[test]
fn frames_that_are_not_of_an_initial_packet_are_told() {
    let hello = client_hello("quic.example", 32);
    let datagram = |before: &[u8]| {
        sealed(
            V1,
            &[1; 8],
            &[],
            0,
            [before, &crypto_frame(0, &hello)].concat(),
        )
    };
    // PADDING, PING, an acknowledgement, the close of a connection.
    check_odd(
        &[&datagram(&[0, 1, 2, 0, 0, 0, 0, 0x1c, 0, 6, 1, b'x'])],
        false,
        false,
        false,
    );
    check_odd(&[&datagram(&[0x30, b'x'])], false, false, true);
}

#[test]
fn the_second_bit_of_a_packet_may_be_anything() {
    let hello = client_hello("quic.example", 32);
    let unset = ([0x83, 0, 0, 0, 1], Version::V1);
    check(
        &[initial_of(unset, &[5; 8], &[], 0, &[(0, &hello)])],
        Some("quic.example"),
        false,
    );
}

#[test]
fn a_version_that_is_not_read_is_told_where_the_server_speaks_it() {
    use crate::Direction::{FromSandbox, ToSandbox};
    use crate::testing::talk::{SERVER, datagram};
    #[track_caller]
    fn check(tried: u32, answered: u32, told: bool) {
        let packet = |version: u32| {
            let head = [&[0xc3][..], &version.to_be_bytes(), &[8], &[1; 8], &[0]].concat();
            [head, vec![9; 1200]].concat()
        };
        let hello = client_hello("quic.example", 32);
        let known = initial(&[1; 8], &[], 0, &[(0, &hello)]);
        let mut lab = crate::testing::lab::Lab::new(crate::FlowConfig::default());
        for (direction, payload) in [
            (FromSandbox, packet(tried)),
            (ToSandbox, packet(answered)),
            (FromSandbox, known),
        ] {
            lab.play(&datagram(direction, 40_000, SERVER, 443, &payload));
        }
        let report = &lab.finish()[0];
        assert_eq!(report.findings.contains(&"start_unread"), told);
        assert_eq!(report.host.as_deref(), Some("quic.example"));
    }
    // Negotiation: the server says which versions it has.
    check(0x1a2a_3a4a, 0, false);
    check(0xff00_001b, 0, false);
    check(0xff00_001b, 1, false);
    check(0xff00_001b, 0xff00_001b, true);
}
