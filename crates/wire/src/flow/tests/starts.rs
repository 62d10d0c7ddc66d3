//! Starts of connections that a server reads otherwise than they stand in the frames.

use crate::testing::lab::{Lab, Report};
use crate::testing::talk::Talk;
use crate::testing::tls::hello_records;
use crate::{Direction, FlowConfig};

fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// The last report of a connection, and its odd things but for what DNS says.
fn report(frames: &[(Direction, Vec<u8>)]) -> (Report, Vec<&'static str>) {
    let mut lab = Lab::new(FlowConfig::default());
    lab.play_all(frames);
    let report = lab.finish().remove(0);
    let mut findings = report.findings.clone();
    findings.retain(|finding| !finding.ends_with("_not_in_dns"));
    (report, findings)
}

/// A receiver leaves out what lies before the first byte, and takes the rest.
#[test]
fn a_segment_that_begins_before_the_stream_is_read_from_its_start() {
    #[track_caller]
    fn check(before: &[u8], decoy: Option<&str>, findings: &[&str]) {
        let mut talk = Talk::open(40_000, 80);
        if let Some(decoy) = decoy {
            talk = talk.client_at(0, &request(decoy));
        }
        let real = [before, &request("evil.example")].concat();
        let (report, found) = report(&talk.client_at(-(before.len() as i32), &real).frames);
        assert_eq!(
            report.host.as_deref(),
            Some(decoy.unwrap_or("evil.example"))
        );
        assert_eq!(found, findings);
    }
    check(b"z", None, &[]);
    check(&[b'z'; 100], None, &[]);
    check(b"z", Some("good.example"), &["inconsistent_reassembly"]);
    check(
        &[b'z'; 100],
        Some("good.example"),
        &["inconsistent_reassembly"],
    );
}

/// The end of a connection that only the tap saw is forgotten, and it goes on, with
/// a decoy first: no handshake tells which numbers are the server's.
#[test]
fn a_decoy_without_a_handshake_is_told() {
    #[track_caller]
    fn check(decoy: i32, real: i32, findings: &[&str]) {
        let talk = Talk::mid_stream(40_000, 80)
            .client_at(decoy, &request("good.example"))
            .client_at(real, &request("evil.example"));
        let (report, found) = report(&talk.server(b"HTTP/1.1 200 OK").frames);
        assert_eq!(report.host.as_deref(), Some("good.example"));
        assert_eq!(found, findings);
    }
    let len = request("evil.example").len() as i32;
    check(0, -len, &["start_unread"]);
    check(-len - 1000, -len, &["start_unread"]);
    check(-len - 100_000, -len, &["start_unread"]);
}

#[test]
fn a_probe_before_the_stream_is_ordinary() {
    for talk in [Talk::open(40_000, 80), Talk::mid_stream(40_000, 80)] {
        let head = request("a.example");
        let len = head.len() as i32;
        let talk = talk.client(&head).client_at(-len - 1, b"\0");
        let (report, found) = report(&talk.server(b"HTTP/1.1 200 OK").frames);
        assert_eq!(report.host.as_deref(), Some("a.example"));
        assert!(found.is_empty());
    }
}

/// A server does not read the last urgent byte with the others.
#[test]
fn urgent_bytes_where_a_host_is_named_are_told() {
    #[track_caller]
    fn check(port: u16, parts: &[&[u8]], urgent: usize, findings: &[&str]) {
        let mut talk = Talk::open(40_000, port);
        for part in parts {
            talk = talk.client(part);
        }
        // The flags of the TCP header, behind 14 + 20 + 13 bytes.
        talk.frames[2 + urgent].1[47] |= 0x20;
        assert_eq!(report(&talk.frames).1, findings);
    }
    let head = request("a.example");
    let (first, second) = head.split_at(20);
    let hello = hello_records("a.example", 32, 16_000);
    // On the acknowledgement that ends the handshake, in the first bytes, in the next.
    for urgent in 0..3 {
        check(80, &[first, second], urgent, &["tcp_urgent"]);
        check(443, &[&hello[..50], &hello[50..]], urgent, &["tcp_urgent"]);
    }
    // Telnet and FTP interrupt so.
    check(23, &[b"\xff\xfd\x03", b"\xff\xf4\xff", b"\xf2"], 2, &[]);
    check(21, &[b"USER a\r\n", b"RETR b\r\n", b"\xff\xf4\xff"], 3, &[]);
}

#[test]
fn a_start_with_more_out_of_order_than_is_held_is_told() {
    #[track_caller]
    fn check(stream: &[u8], ordered: usize, findings: &[&str]) {
        let mut talk = Talk::open(40_000, 8000);
        for (at, byte) in stream.iter().enumerate().skip(ordered + 1) {
            talk = talk.client_at(at as i32, &[*byte]);
        }
        let talk = talk.client_at(0, &stream[..=ordered]);
        assert_eq!(report(&talk.frames).1, findings);
    }
    let hello = hello_records("a.example", 32, 16_000);
    check(&hello[..70], 0, &["start_unread"]);
    check(&hello[..70], 20, &[]);
    let long = [&request("a.example")[..20], &[b'a'; 100]].concat();
    check(&long, 0, &["start_unread"]);
    check(&long, 119, &[]);
}
