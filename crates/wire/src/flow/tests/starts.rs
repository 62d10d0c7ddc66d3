//! Starts of connections that a server reads otherwise than they stand in the frames.

use crate::testing::lab::{Lab, Report};
use crate::testing::talk::Talk;
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

#[test]
fn a_probe_before_the_stream_is_ordinary() {
    let talk = Talk::open(40_000, 80).client_at(-1, b"\0");
    let (report, found) = report(&talk.client(&request("a.example")).frames);
    assert_eq!(report.host.as_deref(), Some("a.example"));
    assert!(found.is_empty());
}
