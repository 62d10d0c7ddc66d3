//! Tricks with QUIC: hellos behind others.

use crate::frames::datagram;
use crate::names::{ALLOWED, after_lookup};

/// Initial packets of version 1 (RFC 9001 section 5), by what they are: `first` has
/// a hello for `allowed.example`, `ping` follows it and has none, `other` begins
/// another connection with a hello for `evil000.example`, and `again` has that one
/// behind the hello of `first`, as after a HelloRetryRequest.
const INITIALS: &str = include_str!("initials.hex");

fn initial(name: &str) -> Vec<u8> {
    let mut lines = INITIALS.lines().filter_map(|line| line.split_once(' '));
    let (_, digits) = lines.find(|(known, _)| *known == name).unwrap();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// An Initial packet of nobody's keys.
fn junk(id: u8) -> Vec<u8> {
    [&[0xc3, 0, 0, 0, 1, 8][..], &[id; 8], &[0, 0, 24], &[7; 24]].concat()
}

#[track_caller]
fn check(test: &str, datagrams: &[Vec<u8>], findings: &[&str]) {
    let frames = datagrams
        .iter()
        .map(|bytes| datagram(ALLOWED, (40_000, 443), bytes));
    let Some(seen) = after_lookup(test, &frames.collect::<Vec<_>>()) else {
        return;
    };
    let flow = seen.to_port(443);
    assert_eq!(flow.dst_host, "allowed.example");
    assert_eq!(flow.findings, findings);
    let names_other = flow.names.iter().any(|it| &*it.name == "evil000.example");
    assert_eq!(names_other, findings.contains(&"sni_changed"));
}

#[test]
fn a_hello_behind_any_number_of_packets_is_told() {
    let [first, ping, other] = ["first", "ping", "other"].map(initial);
    let many = [vec![first.clone()], vec![ping; 99]].concat();
    check("pings", &many, &[]);
    check(
        "behind",
        &[many, vec![other.clone()]].concat(),
        &["sni_not_in_dns", "sni_changed"],
    );
    let few = [junk(1), junk(2), other.clone()].concat();
    check(
        "few-junk",
        &[first.clone(), few],
        &["sni_not_in_dns", "sni_changed"],
    );
    let more: Vec<u8> = (1..30).flat_map(junk).collect();
    check(
        "more-junk",
        &[first, more, other],
        &["sni_not_in_dns", "sni_changed", "start_unread"],
    );
}

#[test]
fn a_second_hello_of_a_connection_is_told() {
    let [first, again] = ["first", "again"].map(initial);
    check("again", &[first, again], &["sni_not_in_dns", "sni_changed"]);
}
