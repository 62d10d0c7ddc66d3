//! Tricks with TCP's numbers: which bytes the server takes for the stream.

use crate::frames::{dns, segment};
use crate::names::{ALLOWED, after_lookup, connection};
use crate::tap::{Ground, RESOLVER};
use sandtrace_sys::netns;
use std::net::{IpAddr, TcpListener};

const PORTS: (u16, u16) = (40_000, 443);
const FAR: u32 = 1 << 28;

fn head(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// A frame that is seen but does not reach the server: its TCP checksum, behind
/// 14 + 20 + 16 bytes, is wrong.
fn lost(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(sum) = frame.get_mut(50) {
        *sum ^= 0xff;
    }
    frame
}

/// A handshake and a request that may not arrive, and then others with other numbers.
fn two_handshakes(to: [u8; 4]) -> [Vec<u8>; 4] {
    [
        lost(segment(to, PORTS, 999, "S", &[])),
        lost(segment(to, PORTS, 1000, "PA", &head("allowed.example"))),
        segment(to, PORTS, FAR - 1, "S", &[]),
        segment(to, PORTS, FAR, "PA", &head("evil.example")),
    ]
}

#[test]
fn a_second_handshake_that_nobody_answers_is_told() {
    let Some(seen) = after_lookup("again", &two_handshakes(ALLOWED)) else {
        return;
    };
    let flows = seen.flows();
    let [first, second] = ["allowed.example", "evil.example"].map(|host| {
        let mut named = flows.iter().filter(|flow| flow.dst_host == host);
        named.find(|flow| flow.dst_port == Some(443)).unwrap()
    });
    assert!(first.findings.is_empty(), "{:?}", first.findings);
    assert_eq!(second.findings, ["host_not_in_dns", "syn_again"]);
}

/// The server never had the first one, and answers the second.
#[test]
fn a_second_handshake_that_the_server_answers_is_another_connection() {
    let Some(ground) = Ground::new("answered") else {
        return;
    };
    let listener = netns::within(Some(&ground.path()), || {
        TcpListener::bind((IpAddr::from(RESOLVER), 443))
    });
    let _listener = listener.unwrap().unwrap();
    let mut watched = ground.watch();
    for frame in two_handshakes(RESOLVER) {
        ground.send(&frame);
        watched.drain();
    }
    let seen = watched.finish();
    let flows = seen.flows();
    let hosts: Vec<_> = flows.iter().map(|flow| &*flow.dst_host).collect();
    assert_eq!(hosts, ["allowed.example", "evil.example"]);
    for flow in flows {
        assert!(!flow.findings.iter().any(|it| it == "syn_again"));
    }
}

/// What the server is said to have had of one connection says nothing of the next one
/// with the same ports: by either capture its first acknowledgement is seen.
#[test]
fn a_connection_that_follows_another_begins_anew() {
    let Some(ground) = Ground::new("anew") else {
        return;
    };
    let watched = ground.watch();
    for (start, heard) in [(999, FAR), (2 * FAR - 1, 1)] {
        let acknowledged = |mut frame: Vec<u8>| {
            // Behind 14 + 20 + 8 bytes.
            frame[42..46].copy_from_slice(&u32::to_be_bytes(heard));
            frame
        };
        let next = start + 1;
        ground.send(&segment(ALLOWED, PORTS, start, "S", &[]));
        ground.send(&acknowledged(segment(ALLOWED, PORTS, next, "A", &[])));
        ground.send(&acknowledged(segment(
            ALLOWED,
            PORTS,
            next,
            "PA",
            &head("a.example"),
        )));
        ground.send(&acknowledged(segment(ALLOWED, PORTS, next + 37, "FA", &[])));
    }
    let seen = watched.finish();
    let flows = seen.flows();
    let histories = flows.iter().filter_map(|flow| flow.history.as_deref());
    assert_eq!(histories.collect::<Vec<_>>(), ["SADF", "SADF"]);
}

#[test]
fn a_segment_that_begins_before_the_stream_is_compared_from_its_start() {
    let mut frames = connection(ALLOWED, &[(0, &head("allowed.example"))]);
    let decoy = frames.pop().unwrap();
    frames.push(lost(decoy));
    let real = [b"z", &head("evil.example")[..]].concat();
    frames.push(segment(ALLOWED, PORTS, 999, "PA", &real));
    let Some(seen) = after_lookup("before", &frames) else {
        return;
    };
    assert_eq!(seen.to_port(443).findings, ["inconsistent_reassembly"]);
}

#[test]
fn urgent_bytes_in_a_request_are_told() {
    let mut frames = connection(ALLOWED, &[(0, &head("allowed.example"))]);
    // The flags of the TCP header.
    frames[1][47] |= 0x20;
    let Some(seen) = after_lookup("urgent", &frames) else {
        return;
    };
    assert_eq!(seen.to_port(443).findings, ["tcp_urgent"]);
}

#[test]
fn a_question_with_too_much_out_of_order_is_told() {
    let question = dns(9, &["label"; 14].join("."), None);
    let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
    let mut frames = vec![segment(ALLOWED, (40_000, 53), 999, "S", &[])];
    let pieces = (1000..).zip(framed.chunks(1)).collect::<Vec<_>>();
    let last_first = pieces.iter().rev();
    frames.extend(last_first.map(|(seq, byte)| segment(ALLOWED, (40_000, 53), *seq, "PA", byte)));
    let Some(seen) = after_lookup("pieces-53", &frames) else {
        return;
    };
    assert_eq!(seen.questions().len(), 1, "that of the host");
    let to_resolver = seen
        .flows()
        .into_iter()
        .find(|flow| flow.dst_ip == Some(ALLOWED.into()));
    let findings = &to_resolver.unwrap().findings;
    assert!(
        findings.iter().any(|it| it == "dns_malformed"),
        "{findings:?}"
    );
}
