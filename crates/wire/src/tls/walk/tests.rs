//! Where application data begins in a TLS stream.

use super::*;
use crate::testing::tls::{hello_records, message, record, server_hello_record};
use crate::tls::Transport;
use proptest::prelude::*;

fn negotiated(cipher_suite: u16, tls13: bool) -> Option<Negotiated> {
    Some(Negotiated::of(cipher_suite, tls13))
}

#[test]
fn a_hello_over_records_is_read() {
    for per_record in [3, 100, 5000] {
        let mut walk = ClientWalk::default();
        let stream = hello_records("API.Example.com.", 1700, per_record);
        assert_eq!(walk.feed(&stream, None), stream.len() as u64);
        let facts = walk.hello().unwrap();
        assert_eq!(facts.sni.as_deref(), Some("api.example.com"));
        assert_eq!(facts.alpn, ["h2", "http/1.1"]);
        assert_eq!(facts.version_offered, Some("1.3"));
        assert!(facts.ech);
    }
}

#[test]
fn the_server_hello_is_read() {
    let record = server_hello_record(0x1302, true);
    assert_eq!(server_hello(&record[..20]), None);
    assert_eq!(server_hello(&record), Some(negotiated(0x1302, true)));
    let record = server_hello_record(0xc02f, false);
    assert_eq!(server_hello(&record), Some(negotiated(0xc02f, false)));
    assert_eq!(server_hello(b"SSH-2.0-x"), Some(None));
    assert_eq!(server_hello(&[ALERT, 3, 3, 0, 2, 2, 40]), Some(None));
}

/// The client's stream and what the server chose; how much is handshake.
#[track_caller]
fn check(records: &[Vec<u8>], server: Option<Negotiated>, handshake: usize, done: bool) {
    let stream = records.concat();
    for step in [1, 7, stream.len()] {
        let mut walk = ClientWalk::default();
        let total: u64 = stream
            .chunks(step)
            .map(|part| walk.feed(part, server))
            .sum();
        assert_eq!(total, handshake as u64, "in pieces of {step}");
        assert_eq!(walk.is_done(), done, "in pieces of {step}");
    }
}

#[test]
fn application_data_starts_after_the_finished_message() {
    let hello = hello_records("a", 32, 5000);
    let ccs = record(CHANGE_CIPHER_SPEC, &[1]);
    let data = |len| record(APPLICATION_DATA, &vec![0; len]);
    let start = hello.len() + ccs.len();
    for (suite, len) in [(0x1301, 53), (0x1302, 69), (0x1303, 53), (0x1305, 45)] {
        let server = negotiated(suite, true);
        let all = [hello.clone(), ccs.clone(), data(len), data(316)];
        check(&all, server, start + 5 + len, true);
        check(&all[..3], server, start + 5 + len, false);
    }
    // Another length than the suite's Finished is not taken for one.
    let server = negotiated(0x1301, true);
    check(&[hello.clone(), ccs.clone(), data(54)], server, start, true);
    // A second one of the right length is data.
    check(
        &[hello.clone(), data(53), data(53)],
        server,
        hello.len() + 58,
        true,
    );
    // Early data, and a server that was not seen.
    check(&[hello.clone(), data(53)], None, hello.len(), true);
}

#[test]
fn in_tls12_the_first_data_record_is_data() {
    let stream = [
        hello_records("a", 32, 5000),
        record(HANDSHAKE, &message(16, &[0; 66])),
        record(CHANGE_CIPHER_SPEC, &[1]),
        record(HANDSHAKE, &[1; 40]),
    ];
    let handshake = stream.concat().len();
    let with_data = [&stream[..], &[record(APPLICATION_DATA, &[0; 53])]].concat();
    check(&with_data, negotiated(0xc02f, false), handshake, true);
}

#[test]
fn what_is_no_record_is_data() {
    let hello = hello_records("a", 32, 5000);
    let len = hello.len();
    check(&[hello.clone(), b"GET / HTTP".to_vec()], None, len, true);
    check(
        &[hello.clone(), vec![HANDSHAKE, 3, 3, 0, 0]],
        None,
        len,
        true,
    );
    check(&[hello, vec![HANDSHAKE, 3, 3, 0xff, 0xff]], None, len, true);
}

#[test]
fn a_second_hello_with_another_name_is_noticed() {
    let mut walk = ClientWalk::default();
    walk.feed(&hello_records("a", 32, 5000), None);
    walk.feed(&hello_records("a", 64, 5000), None);
    assert!(walk.findings().is_empty());
    walk.feed(&hello_records("b", 64, 5000), None);
    assert!(walk.findings().contains(Finding::SniChanged));
    assert_eq!(walk.hello().unwrap().sni.as_deref(), Some("a"));
}

#[test]
fn alerts_are_told_by_their_shape() {
    assert!(is_alert(&record(ALERT, &[1, 0]), 7));
    assert!(is_alert(&record(APPLICATION_DATA, &[0; 19]), 24));
    assert!(!is_alert(&record(APPLICATION_DATA, &[0; 20]), 25));
    assert!(!is_alert(&record(APPLICATION_DATA, &[0; 19]), 48));
    assert!(!is_alert(&[ALERT, 3], 2));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_facts(
        per_record in 1_usize..600,
        key in 0_usize..1800,
        cuts in proptest::collection::vec(1_usize..400, 0..20),
    ) {
        let stream = hello_records("split.example", key, per_record);
        let mut walk = ClientWalk::default();
        let mut rest = &stream[..];
        let mut handshake = 0;
        for cut in cuts {
            let (part, later) = rest.split_at(cut.min(rest.len()));
            handshake += walk.feed(part, None);
            rest = later;
        }
        handshake += walk.feed(rest, None);
        prop_assert_eq!(handshake, stream.len() as u64);
        prop_assert_eq!(walk.hello().unwrap().sni.as_deref(), Some("split.example"));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, at: usize, value: u8) {
        let mut walk = ClientWalk::default();
        walk.feed(&bytes, negotiated(0x1301, true));
        let _ = server_hello(&bytes);
        let _ = is_alert(&bytes, 24);
        let _ = TlsFacts::client_hello(&bytes, Transport::Tcp);
        let mut hello = hello_records("a", 40, 64);
        let at = at % hello.len();
        hello[at] = value;
        let mut walk = ClientWalk::default();
        prop_assert!(walk.feed(&hello, None) <= hello.len() as u64);
        prop_assert!(walk.footprint() < 100_000);
    }
}
