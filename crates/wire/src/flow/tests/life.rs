//! When flows open, update and close.

use crate::Direction::{self, FromSandbox, ToSandbox};
use crate::testing::lab::Lab;
use crate::testing::talk::{Frames, RESOLVER, SERVER, Talk, datagram, dns};
use crate::testing::tls::hello_records;
use crate::{End, FlowConfig, Initiator, Numbering, Phase, TcpState};

const SECOND: u64 = 1_000_000;

fn lab() -> Lab {
    Lab::new(FlowConfig::default())
}

#[test]
fn a_connection_opens_with_its_name_or_after_the_delay() {
    let hello = hello_records("a.example", 32, 16_000);
    let talk = Talk::open(40_000, 443).client(&hello);
    let mut lab = lab();
    lab.play_all(&talk.frames);
    assert_eq!(lab.phases(), [Phase::Open]);

    let mut lab = self::lab();
    lab.play_all(&talk.frames[..3]);
    assert_eq!(lab.wait(0), Some(1_000_010 + 100_000));
    assert_eq!(lab.phases(), []);
    lab.wait(100_000);
    assert_eq!(lab.phases(), [Phase::Open]);
    assert_eq!(lab.sink.reports[0].host, None);
    // The name that comes late is reported at once.
    lab.play(&talk.frames[3]);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update]);
    assert_eq!(lab.sink.reports[1].host.as_deref(), Some("a.example"));
}

#[test]
fn a_server_that_speaks_first_opens_the_flow() {
    let mut lab = lab();
    lab.play_all(&Talk::open(40_000, 25).server(b"220 hello\r\n").frames);
    assert_eq!(lab.phases(), [Phase::Open]);
}

#[test]
fn an_ended_connection_closes_after_its_stragglers() {
    #[track_caller]
    fn check(talk: &Talk, end: End, state: TcpState) {
        let mut lab = lab();
        lab.play_all(&talk.frames);
        assert!(lab.closed().is_empty());
        lab.wait(SECOND);
        assert!(lab.closed().is_empty());
        lab.wait(SECOND);
        let closed = lab.closed();
        assert_eq!((closed[0].end, closed[0].state), (Some(end), Some(state)));
        assert_eq!(lab.wait(0), None);
    }
    check(
        &Talk::open(40_000, 80).client(b"x").fin(),
        End::Fin,
        TcpState::SF,
    );
    check(&Talk::open(40_000, 80).reset(), End::Rst, TcpState::Rstr);
}

#[test]
fn a_new_connection_on_the_same_ports_is_a_new_flow() {
    let talk = Talk::open(40_000, 80).client(b"x").fin();
    let mut lab = lab();
    lab.play_all(&talk.frames);
    lab.play_all(&talk.frames);
    let closed = lab.finish();
    assert_eq!(closed.len(), 2);
    for flow in closed {
        assert_eq!(flow.end, Some(End::Fin));
        assert_eq!(flow.sent.payload_bytes, 1);
    }
}

/// What the client sends first on a connection with other numbers: its SYN, and
/// more if the server answers that.
fn second_handshake(answered: bool) -> Frames {
    let mut talk = Talk::open_from(1 << 28, 40_000, 80);
    talk.frames.truncate(if answered { 3 } else { 1 });
    talk.client(&[0; 100]).frames
}

/// Nobody can tell which of the two the server goes on with.
#[test]
fn payload_after_a_second_handshake_that_the_server_does_not_answer_is_told() {
    let first = Talk::open(40_000, 80);
    let goes_on = first.frames.len();
    for first in [first.client(&[0; 10]), Talk::open(40_000, 80).reset()] {
        for goes_on_with_second in [true, false] {
            let mut frames = first.frames.clone();
            frames.extend(second_handshake(false));
            if !goes_on_with_second {
                frames.pop();
                let first = Talk::open(40_000, 80).client(&[0; 100]);
                frames.extend_from_slice(&first.frames[goes_on..]);
            }
            let mut lab = lab();
            lab.play_all(&frames);
            let closed = lab.finish();
            assert_eq!(closed.len(), 2);
            assert!(closed[0].findings.is_empty());
            assert_eq!(closed[1].findings, ["syn_again"]);
            assert_eq!(closed[1].sent.payload_bytes, 100);
        }
    }
}

#[test]
fn a_connection_whose_end_was_not_seen_is_followed_by_the_next_on_its_ports() {
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let first = Talk::open(40_000, 80).client(&request("a.example"));
    let next = Talk::open_from(1 << 28, 40_000, 80).client(&request("b.example"));
    // The server may refuse the next one at first, as it still has the first.
    let refused = Talk::open_from(1 << 28, 40_000, 80).frames[..1].to_vec();
    let reset = Talk::open(40_000, 80).client_resets().frames[3..].to_vec();
    for between in [vec![], [refused, reset].concat()] {
        let mut lab = lab();
        lab.play_all(first.frames.iter().chain(&between).chain(&next.frames));
        let closed = lab.finish();
        let last = closed.last().unwrap();
        assert_eq!(closed[0].host.as_deref(), Some("a.example"));
        assert_eq!(last.host.as_deref(), Some("b.example"));
        for flow in closed {
            assert!(!flow.findings.contains(&"syn_again"));
        }
    }
}

/// Before anything but a SYN was sent, the client may try again with another one.
#[test]
fn an_attempt_with_another_number_is_the_same_flow() {
    let attempt = Talk::open(40_000, 80).frames[..1].to_vec();
    let check = |frames: &[(Direction, Vec<u8>)], findings: &[&str]| {
        let mut lab = lab();
        lab.play_all(attempt.iter().chain(frames));
        let closed = lab.finish();
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].findings, findings);
        assert_eq!(closed[0].sent.payload_bytes, 100);
    };
    check(&second_handshake(true), &[]);
    check(&second_handshake(false), &["syn_again"]);
    // The server answers the first of them.
    let mut answered = second_handshake(true);
    answered[1] = Talk::open(40_000, 80).frames[1].clone();
    check(&answered, &["syn_again"]);
}

#[test]
fn a_long_flow_is_updated_and_a_silent_one_closes() {
    let mut lab = lab();
    let talk = Talk::open(40_000, 5000).client(b"x");
    lab.play_all(&talk.frames);
    lab.wait(61 * SECOND);
    assert_eq!(lab.phases(), [Phase::Open], "nothing happened since");
    lab.play_all(&talk.client(b"y").frames[4..]);
    lab.wait(61 * SECOND);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update]);
    lab.wait(30 * 60 * SECOND);
    assert_eq!(lab.closed()[0].end, Some(End::Idle));
    assert_eq!(lab.wait(0), None);
}

#[test]
fn who_began_is_told_by_the_first_packet() {
    #[track_caller]
    fn check(frame: usize, flip: bool, expected: Initiator) {
        let talk = Talk::open(40_000, 80).client(b"x").server(b"y");
        let (direction, bytes) = talk.frames[frame].clone();
        let direction = if flip {
            direction.reversed()
        } else {
            direction
        };
        let mut lab = lab();
        lab.play(&(direction, bytes));
        assert_eq!(lab.finish()[0].initiator, expected);
    }
    check(0, false, Initiator::Sandbox);
    check(0, true, Initiator::Outside);
    check(1, false, Initiator::Sandbox);
    check(1, true, Initiator::Sandbox);
    check(4, false, Initiator::Sandbox);
    check(4, true, Initiator::Sandbox);
    check(3, true, Initiator::Outside);
}

#[test]
fn a_full_table_closes_the_idlest_flow() {
    let mut lab = Lab::new(FlowConfig {
        max_flows: 3,
        ..FlowConfig::default()
    });
    for port in [1, 2, 3, 1, 4] {
        lab.play(&datagram(FromSandbox, port, SERVER, 9, b"x"));
    }
    let closed = lab.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].end, Some(End::Evicted));
    assert_eq!(closed[0].flow_id, 2);
    assert_eq!(lab.finish().len(), 4);
}

#[test]
fn tables_of_one_trail_never_number_two_flows_alike() {
    const TABLES: usize = 3;
    let mut numbers = Vec::new();
    for index in 0..TABLES {
        let mut lab = Lab::new(FlowConfig {
            numbering: Numbering::of(index, TABLES),
            ..FlowConfig::default()
        });
        for port in 1..=4 {
            lab.play(&datagram(FromSandbox, port, SERVER, 9, b"x"));
        }
        numbers.extend(lab.finish().iter().map(|flow| flow.flow_id));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
}

#[test]
fn an_answerless_flow_of_the_outside_is_ingress() {
    let mut lab = lab();
    lab.play(&datagram(ToSandbox, 9, SERVER, 4000, b"x"));
    let report = &lab.finish()[0];
    assert_eq!(report.initiator, Initiator::Outside);
    assert_eq!(report.end, Some(End::Detached));
}

#[test]
fn settings_of_zero_do_not_hang() {
    let mut lab = Lab::new(FlowConfig {
        max_flows: 0,
        open_delay_us: 0,
        update_interval_us: 0,
        tcp_idle_us: 0,
        tcp_attempt_us: 0,
        tcp_linger_us: 0,
        udp_idle_us: 0,
        other_idle_us: 0,
        call_pause_us: Some(0),
        dns_timeout_us: 0,
        max_dns_pending: 0,
        max_named_addresses: 0,
        reassembly_bytes: 0,
        reassembly_bytes_total: 0,
        ..FlowConfig::default()
    });
    lab.play_all(
        &Talk::open(40_000, 443)
            .client(b"x")
            .server(b"y")
            .fin()
            .frames,
    );
    lab.wait(1);
    assert_eq!(lab.finish().len(), 1);
}

/// What `late` does to an open conversation is in an update 100 ms later, and
/// in no other.
#[track_caller]
fn check_late(begin: &Frames, late: &[(Direction, Vec<u8>)], finding: &str) {
    let mut lab = Lab::new(FlowConfig::default());
    lab.play_all(begin);
    assert_eq!(lab.phases(), [Phase::Open]);
    lab.wait(5_000_000);
    lab.play_all(late);
    lab.wait(90_000);
    assert_eq!(lab.phases(), [Phase::Open], "not each for itself");
    let next = lab.wait(10_001);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update]);
    let findings = &lab.sink.reports[1].findings;
    assert!(findings.contains(&finding), "{findings:?}");
    assert!(next.unwrap() > lab.now_us + 1_000_000);
    lab.wait(30_000_000);
    assert_eq!(lab.phases(), [Phase::Open, Phase::Update]);
}

#[test]
fn what_is_found_after_the_open_is_told_within_100_ms() {
    let ask = |host: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Talk::open(40_000, 80).client(head.as_bytes()).frames
    };
    let other = ask("192.0.2.66").split_off(3);
    check_late(&ask("192.0.2.10"), &other, "inconsistent_reassembly");
    let lookup = |direction, id, answer| {
        datagram(direction, 5353, RESOLVER, 53, &dns(id, "a.example", answer))
    };
    let question = vec![lookup(FromSandbox, 7, None)];
    let forged = [lookup(ToSandbox, 8, Some([192, 0, 2, 9]))];
    check_late(&question, &forged, "dns_unmatched_answer");
}

#[test]
fn what_is_near_is_told_and_what_every_sandbox_asks_is_not() {
    #[track_caller]
    fn check(direction: Direction, peer: [u8; 4], port: u16, findings: &[&str]) {
        let mut lab = Lab::new(FlowConfig {
            accepted_resolvers: vec![[10, 0, 0, 1].into()],
            host_addresses: vec![[10, 0, 0, 1].into(), [203, 0, 113, 1].into()],
            ..FlowConfig::default()
        });
        lab.play(&datagram(direction, 40_000, peer, port, b"x"));
        let near = |it: &&str| it.ends_with("_address");
        let report = &lab.finish()[0];
        let found: Vec<_> = report.findings.iter().copied().filter(near).collect();
        assert_eq!(found, findings, "{peer:?}");
    }
    check(FromSandbox, SERVER, 443, &[]);
    for near in [
        [10, 1, 2, 3],
        [172, 31, 0, 1],
        [192, 168, 0, 1],
        [169, 254, 0, 9],
        [100, 64, 0, 1],
        [127, 0, 0, 1],
    ] {
        check(FromSandbox, near, 443, &["private_address"]);
    }
    for far in [[172, 32, 0, 1], [100, 128, 0, 1], [11, 0, 0, 1]] {
        check(FromSandbox, far, 443, &[]);
    }
    check(FromSandbox, [169, 254, 169, 254], 80, &["metadata_address"]);
    check(FromSandbox, [203, 0, 113, 1], 22, &["host_address"]);
    check(
        FromSandbox,
        [10, 0, 0, 1],
        22,
        &["private_address", "host_address"],
    );
    check(FromSandbox, [10, 0, 0, 1], 53, &[]);
    check(ToSandbox, [10, 0, 0, 1], 22, &[]);
}
