//! Calls over whole connections.

use crate::testing::lab::{Lab, Report};
use crate::testing::talk::Talk;
use crate::testing::tls::{hello_records, message, record, server_hello_record};
use crate::{Direction, FlowConfig, Phase};
use proptest::prelude::*;

const CCS: u8 = 20;
const DATA: u8 = 23;
const ALERT: u8 = 21;

fn data(len: usize) -> Vec<u8> {
    record(DATA, &vec![0xee; len])
}

/// A record that is `len` bytes long as a whole.
fn record_of(len: usize) -> Vec<u8> {
    data(len - 5)
}

/// Hello, server's flight, CCS and Finished; the sum of the client's bytes.
fn tls13(talk: Talk) -> (Talk, usize) {
    let hello = hello_records("api.stripe.com", 1216, 16_000);
    let server = [
        server_hello_record(0x1301, true),
        record(CCS, &[1]),
        data(1200),
    ]
    .concat();
    let finished = [record(CCS, &[1]), data(53)].concat();
    let bytes = hello.len() + finished.len();
    let talk = talk
        .client_in(1448, &hello)
        .server(&server)
        .client(&finished);
    (talk, bytes)
}

#[track_caller]
fn last(talk: &Talk) -> Report {
    let mut lab = Lab::new(FlowConfig::default());
    lab.play_all(&talk.frames);
    let closed = lab.finish();
    assert_eq!(closed.len(), 1);
    let report = closed[0].clone();
    assert!(report.handshake_bytes <= report.sent.payload_bytes);
    report
}

#[track_caller]
fn check(talk: &Talk, handshake: usize, calls: u64, max_call: u64, max_call_bytes: u64) {
    let report = last(talk);
    assert_eq!(report.handshake_bytes, handshake as u64, "handshake");
    assert_eq!(
        (report.calls, report.max_call, report.max_call_bytes),
        (calls, max_call, max_call_bytes)
    );
}

#[test]
fn tls13_requests_are_calls_and_the_handshake_is_none() {
    let (talk, handshake) = tls13(Talk::open(40_000, 443));
    let talk = talk
        .server(&data(500))
        .client(&record_of(316))
        .server(&data(900))
        .client_in(1448, &record_of(5012))
        .server(&data(200));
    check(&talk, handshake, 2, 2, 5012);
    let report = last(&talk);
    assert_eq!(report.host.as_deref(), Some("api.stripe.com"));
    assert_eq!(report.sent.payload_bytes, handshake as u64 + 316 + 5012);
}

#[test]
fn a_finished_message_and_a_request_may_share_a_segment() {
    let hello = hello_records("a", 32, 16_000);
    let second = [record(CCS, &[1]), data(69), record_of(316)].concat();
    let talk = Talk::open(40_000, 443)
        .client(&hello)
        .server(&server_hello_record(0x1302, true))
        .client(&second)
        .server(&data(900));
    check(&talk, hello.len() + second.len() - 316, 1, 1, 316);
}

#[test]
fn tickets_sent_before_the_request_arrived_do_not_split_it() {
    let (talk, handshake) = tls13(Talk::open(40_000, 443));
    let request = record_of(2000);
    let (first, second) = request.split_at(1448);
    // The tickets cross the first segment: the server has not seen it yet.
    let talk = talk
        .client(first)
        .server_acking_less(1448, &data(500))
        .client(second)
        .server(&data(100));
    check(&talk, handshake, 1, 1, 2000);
}

#[test]
fn a_goodbye_is_no_call() {
    let (talk, handshake) = tls13(Talk::open(40_000, 443));
    let talk = talk.client(&record_of(316)).server(&data(100));
    let talk = talk.client(&data(19)).fin();
    check(&talk, handshake + 24, 1, 1, 316);
    let (talk, handshake) = tls13(Talk::open(40_000, 443));
    let talk = talk.client(&record_of(316)).server(&data(100));
    let talk = talk.client(&data(19)).server(&data(19)).client(&data(40));
    check(&talk.fin(), handshake, 3, 1, 316);
}

#[test]
fn in_tls12_the_first_data_record_starts_the_first_call() {
    let hello = hello_records("a", 32, 16_000);
    let key = [
        record(22, &message(16, &[3; 66])),
        record(CCS, &[1]),
        record(22, &[1; 40]),
    ]
    .concat();
    let talk = Talk::open(40_000, 443)
        .client(&hello)
        .server(&server_hello_record(0xc02f, false))
        .client(&key)
        .server(&[record(CCS, &[1]), record(22, &[1; 40])].concat())
        .client(&data(53))
        .server(&data(100))
        .client(&record(ALERT, &[0; 26]))
        .fin();
    check(&talk, hello.len() + key.len() + 31, 1, 1, 58);
}

#[test]
fn plain_requests_are_calls_from_the_first_byte() {
    let talk = Talk::open(40_000, 80)
        .client(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        .server(b"HTTP/1.1 200 OK\r\n\r\n")
        .client(&[b'x'; 900])
        .client(&[b'x'; 900]);
    check(&talk, 0, 2, 2, 1800);
    check(&Talk::open(40_000, 5000).client(&[22]), 0, 1, 1, 1);
}

#[test]
fn bytes_sent_again_do_not_count_again() {
    let talk = Talk::open(40_000, 80)
        .client(&[b'a'; 100])
        .client_at(-100, &[b'a'; 100])
        .client_at(-50, &[b'a'; 50])
        .server(b"x")
        .client(&[b'b'; 10]);
    check(&talk, 0, 2, 1, 100);
    let report = last(&talk);
    assert_eq!(report.sent.payload_bytes, 110);
    assert_eq!(report.sent.resent_bytes, 150);
}

#[test]
fn a_handshake_that_cannot_be_followed_counts_as_a_call() {
    let hello = hello_records("a", 4000, 16_000);
    let talk = Talk::open(40_000, 443).client_in(1448, &hello);
    let mut lab = Lab::new(FlowConfig::default());
    for (direction, bytes) in &talk.frames {
        lab.play_cut(*direction, bytes, 128);
    }
    let report = &lab.finish()[0];
    assert_eq!(report.sent.payload_bytes, hello.len() as u64);
    assert_eq!(
        report.handshake_bytes + report.max_call_bytes,
        hello.len() as u64
    );
    assert!(report.max_call_bytes > 2000);
}

#[test]
fn a_segment_that_the_capture_lost_does_not_hide_the_calls_after_it() {
    let (mut talk, _) = tls13(Talk::open(40_000, 443));
    // The hello.
    talk.frames.remove(3);
    let talk = talk.client(&record_of(5012)).server(&data(10));
    let report = last(&talk);
    assert_eq!(report.missed_bytes, [1367, 0]);
    assert!(report.max_call_bytes >= 5012);
    let (mut talk, _) = tls13(Talk::open(40_000, 443));
    // The hello is frame 3, the server's flight 4, the Finished message 5.
    talk.frames.remove(5);
    let talk = talk.client(&record_of(5012)).server(&data(10));
    let report = last(&talk);
    assert_eq!(report.missed_bytes, [64, 0]);
    assert_eq!(report.max_call_bytes, 5012);
}

#[test]
fn a_bound_is_reported_at_the_segment_that_crosses_it() {
    let (talk, _) = tls13(Talk::open(40_000, 443));
    let opened = talk.frames.len();
    let talk = talk
        .server(&data(500))
        .client(&record_of(316))
        .server(&data(900))
        .client_in(1000, &record_of(5012))
        .server(&data(200))
        .client_in(1000, &record_of(4097));
    let mut lab = Lab::with_call_bound(FlowConfig::default(), 4096);
    lab.play_all(&talk.frames[..opened]);
    assert_eq!(lab.phases(), [Phase::Open]);
    lab.play_all(&talk.frames[opened..]);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update, Phase::Update]);
    let crossing = &lab.sink.reports[1];
    assert_eq!((crossing.calls, crossing.max_call), (2, 2));
    assert_eq!(crossing.max_call_bytes, 5000);
    let again = &lab.sink.reports[2];
    assert_eq!((again.calls, again.max_call), (3, 2));
}

#[test]
fn the_total_bound_is_reported_once() {
    let mut lab = Lab::new(FlowConfig::default());
    lab.sink.bounds.max_bytes_total = Some(150);
    let mut talk = Talk::open(40_000, 5000);
    for _ in 0..4 {
        talk = talk.client(&[0; 100]).server(b"x");
    }
    lab.play_all(&talk.frames);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update]);
    assert_eq!(lab.sink.reports[1].sent.payload_bytes, 200);
}

#[test]
fn a_pause_ends_a_call_where_it_is_set() {
    let config = FlowConfig {
        call_pause_us: Some(1_000_000),
        ..FlowConfig::default()
    };
    let mut lab = Lab::new(config);
    let talk = Talk::open(40_000, 5000).client(&[0; 10]).client(&[0; 20]);
    lab.play_all(&talk.frames[..4]);
    lab.wait(2_000_000);
    lab.play_all(&talk.frames[4..]);
    let report = &lab.finish()[0];
    assert_eq!((report.calls, report.max_call_bytes), (2, 20));
}

proptest! {
    /// Segments between two answers may come in any order and more than once.
    #[test]
    fn order_and_repeats_change_nothing(
        seed in any::<u64>(),
        // At most 16 segments a run: beyond that the count may be too high.
        size in 190_usize..700,
        first in 100_usize..3000,
        second in 100_usize..3000,
    ) {
        let hello = hello_records("order.example", 900, 700);
        let finished = [record(CCS, &[1]), data(53)].concat();
        let handshake = hello.len() + finished.len();
        let talk = Talk::open(40_000, 443)
            .client_in(size, &hello)
            .server(&server_hello_record(0x1301, true))
            .client(&finished)
            .server(&data(300))
            .client_in(size, &record_of(first))
            .server(&data(300))
            .client_in(size, &record_of(second))
            .server(&data(300));
        let mut lab = Lab::new(FlowConfig::default());
        let mut random = seed;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        let runs = talk.frames.chunk_by(|a, b| a.0 == b.0);
        for run in runs {
            let mut run = run.to_vec();
            if run[0].0 == Direction::FromSandbox && run[0].1.len() > 60 {
                for at in 0..run.len() {
                    let other = next(run.len());
                    run.swap(at, other);
                    if next(4) == 0 {
                        run.push(run[at].clone());
                    }
                }
            }
            lab.play_all(&run);
        }
        let report = &lab.finish()[0];
        let largest = first.max(second) as u64;
        prop_assert_eq!(report.handshake_bytes, handshake as u64);
        prop_assert_eq!((report.calls, report.max_call_bytes), (2, largest));
        prop_assert_eq!(report.host.as_deref(), Some("order.example"));
        prop_assert_eq!(report.missed_bytes, [0, 0]);
    }
}

#[test]
fn no_more_may_be_sent_again_than_may_be_sent() {
    let bytes = vec![7; 900];
    let talk = (0..3).fold(Talk::open(1, 9000).client(&bytes), |talk, _| {
        talk.client_at(-900, &bytes)
    });
    for (bound, told) in [(None, false), (Some(2700), false), (Some(2600), true)] {
        let mut lab = Lab::new(FlowConfig::default());
        lab.sink.bounds.max_bytes_total = bound;
        lab.play_all(&talk.frames);
        let findings = &lab.finish()[0].findings;
        assert_eq!(
            findings.contains(&"excess_retransmission"),
            told,
            "{bound:?}"
        );
    }
}
