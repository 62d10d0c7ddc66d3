//! Every way to cheat that needs no key, and what verify says of it.

use crate::naive::{self, Class};
use crate::sample::{lines, short_trail, trail, write_trail};
use sandtrace_audit_chain::jcs::Flaw;
use sandtrace_audit_chain::verify::{Fault, FaultKind, Incomplete};
use sandtrace_audit_chain::{MAX_LINE, Outcome, VerifyOptions, verify};
use std::fs::File;
use std::num::NonZero;

pub(crate) fn outcome(trail: &[u8]) -> Outcome {
    verify(trail, &VerifyOptions::default()).unwrap().outcome
}

pub(crate) fn class(outcome: &Outcome) -> Class {
    match outcome {
        Outcome::Intact { .. } => Class::Intact,
        Outcome::Tampered(_) => Class::Tampered,
        Outcome::Malformed(_) => Class::Malformed,
        Outcome::Incomplete(_) => Class::Incomplete,
        Outcome::Empty => Class::Empty,
    }
}

/// The fault's line and kind, after asking the oracle for the same line.
#[track_caller]
fn fault(trail: &[u8]) -> (u64, FaultKind) {
    let outcome = outcome(trail);
    let (naive_class, naive_line) = naive::verify(trail);
    assert_eq!(class(&outcome), naive_class, "{outcome:?}");
    match outcome {
        Outcome::Tampered(fault) | Outcome::Malformed(fault) => {
            assert_eq!(fault.line, u64::try_from(naive_line).unwrap(), "{fault}");
            (fault.line, fault.what)
        }
        other => panic!("no fault: {other:?}"),
    }
}

#[track_caller]
fn tampered(trail: &[u8], line: u64, code: &str) {
    let (at, what) = fault(trail);
    assert_eq!((at, what.code(), what.is_malformed()), (line, code, false));
}

#[track_caller]
fn malformed(trail: &[u8], line: u64, flaw: Flaw) {
    assert_eq!(fault(trail), (line, FaultKind::NotCanonical(flaw)));
}

/// Replaces text in one line, counted from 1.
fn edit(number: usize, from: &str, to: &str) -> Vec<u8> {
    let mut lines = lines(&trail("trace-001"));
    let line = String::from_utf8(lines[number - 1].clone()).unwrap();
    assert!(line.contains(from), "{line}");
    lines[number - 1] = line.replacen(from, to, 1).into_bytes();
    lines.concat()
}

fn rearranged(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut lines = lines(&trail("trace-001"));
    change(&mut lines);
    lines.concat()
}

#[test]
fn an_untouched_trail_is_intact() {
    let trail = trail("trace-001");
    for threads in 1..4 {
        let options = VerifyOptions {
            threads: NonZero::new(threads),
            live: false,
            ..VerifyOptions::default()
        };
        let report = verify(&trail[..], &options).unwrap();
        assert_eq!(report.outcome, Outcome::Intact { sealed: true });
        assert_eq!(report.records, 12);
        assert_eq!(report.bytes, u64::try_from(trail.len()).unwrap());
        let identity = report.identity.unwrap();
        assert_eq!(identity.sandbox_id, "vm-é");
        let lost: Vec<_> = report.lost.values().copied().collect();
        assert_eq!(lost, [7, 1500]);
        assert_eq!(report.end.unwrap().events, {
            let mut events = report.counts.events();
            events.remove("trail_end");
            events
        });
        assert_eq!(report.start, Some(crate::sample::start()));
        let mark = report.last.unwrap();
        assert_eq!(mark.seq, 12);
        assert_eq!(mark.wall_time, Some(crate::sample::at(110).wall));
    }
    assert_eq!(naive::verify(&trail), (Class::Intact, 12));
}

#[test]
fn edited_records() {
    tampered(
        &edit(4, "\"bytes_sent\":316", "\"bytes_sent\":317"),
        4,
        "record_hash",
    );
    tampered(
        &edit(6, "\"result\":\"deny\"", "\"result\":\"allow\""),
        6,
        "record_hash",
    );
    tampered(
        &edit(
            4,
            "\"agent_id\":\"agent-xyz\"",
            "\"agent_id\":\"agent-abc\"",
        ),
        4,
        "record_hash",
    );
    tampered(&edit(2, "\"seq\":2", "\"seq\":3"), 2, "record_hash");
    tampered(
        &edit(
            1,
            "\"prev_hash\":null",
            &format!("\"prev_hash\":\"sha256:{}\"", "0".repeat(64)),
        ),
        1,
        "record_hash",
    );
}

#[test]
fn deleted_inserted_swapped_and_duplicated_records() {
    tampered(&rearranged(|lines| drop(lines.remove(3))), 4, "seq");
    tampered(&rearranged(|lines| drop(lines.remove(0))), 1, "seq");
    tampered(
        &rearranged(|lines| lines.insert(5, lines[1].clone())),
        6,
        "seq",
    );
    tampered(
        &rearranged(|lines| lines.insert(5, lines[4].clone())),
        6,
        "seq",
    );
    tampered(&rearranged(|lines| lines.swap(3, 4)), 4, "seq");
    let other = lines(&trail("trace-002"));
    tampered(
        &rearranged(|lines| lines[4] = other[4].clone()),
        5,
        "prev_hash",
    );
}

#[test]
fn concatenated_and_continued_trails() {
    let [one, two] = ["trace-001", "trace-002"].map(trail);
    tampered(&[one.clone(), two].concat(), 13, "after_end");
    tampered(&[one.clone(), one.clone()].concat(), 13, "after_end");
    let unsealed = rearranged(|lines| drop(lines.pop()));
    tampered(&[unsealed, one.clone()].concat(), 12, "seq");
    // A torn line after the end is no crash: the writer had finished.
    tampered(&[&one, &one[..100]].concat(), 13, "after_end");
}

#[test]
fn cut_tails() {
    let trail = trail("trace-001");
    let ends: Vec<usize> = lines(&trail)
        .iter()
        .scan(0, |end, line| {
            *end += line.len();
            Some(*end)
        })
        .collect();
    for cut in 0..trail.len() {
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let whole_bytes = if whole == 0 { 0 } else { ends[whole - 1] };
        let expected = match (whole, cut - whole_bytes) {
            (0, 0) => Outcome::Empty,
            (_, 0) => Outcome::Incomplete(Incomplete::NoEnd),
            (_, bytes) => Outcome::Incomplete(Incomplete::CutOff {
                byte_offset: whole_bytes.try_into().unwrap(),
                bytes: bytes.try_into().unwrap(),
                line: (whole + 1).try_into().unwrap(),
            }),
        };
        assert_eq!(outcome(&trail[..cut]), expected, "cut at {cut}");
    }
}

#[test]
fn a_live_trail_may_stop_anywhere() {
    let trail = trail("trace-001");
    let first = lines(&trail)[0].len();
    let options = VerifyOptions {
        live: true,
        threads: None,
        ..VerifyOptions::default()
    };
    for cut in first..trail.len() {
        let report = verify(&trail[..cut], &options).unwrap();
        assert_eq!(report.outcome, Outcome::Intact { sealed: false });
        let seen = report.bytes + report.partial_bytes;
        assert_eq!(seen, u64::try_from(cut).unwrap());
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let mut trail = short_trail();
    assert_eq!(outcome(&trail), Outcome::Intact { sealed: true });
    for place in 0..trail.len() {
        for bit in 0..8 {
            trail[place] ^= 1 << bit;
            let outcome = outcome(&trail);
            assert!(
                !matches!(outcome, Outcome::Intact { .. } | Outcome::Empty),
                "byte {place}, bit {bit}: {outcome:?}"
            );
            trail[place] ^= 1 << bit;
        }
    }
}

#[test]
fn other_spellings_of_the_same_record() {
    malformed(
        &edit(4, "\"calls\":1", "\"calls\":1,\"calls\":1"),
        4,
        Flaw::DuplicateKey,
    );
    malformed(
        &edit(4, "\"bytes_sent\":316", "\"bytes_sent\":3.16e2"),
        4,
        Flaw::Number,
    );
    malformed(
        &edit(4, "\"src_port\":40000", "\"src_port\":4e4"),
        4,
        Flaw::Number,
    );
    malformed(
        &edit(4, "\"mono_us\":40", "\"mono_us\":40.0"),
        4,
        Flaw::Number,
    );
    malformed(
        &edit(4, "api.stripe.com", "api.\\u0073tripe.com"),
        4,
        Flaw::Escape,
    );
    malformed(&edit(6, "\\u001b", "\\u001B"), 6, Flaw::Escape);
    malformed(&edit(4, "\"allow\"},", "\"allow\"}, "), 4, Flaw::WhiteSpace);
    malformed(&edit(4, "Z\"}\n", "Z\"}\r\n"), 4, Flaw::Trailing);
    malformed(&edit(4, "Z\"}\n", "Z\"}}\n"), 4, Flaw::Trailing);
    malformed(&edit(4, "\n", "\n\n"), 5, Flaw::End);
    let trail = trail("trace-001");
    malformed(
        &[b"\xef\xbb\xbf", &trail[..]].concat(),
        1,
        Flaw::Unexpected(0xef),
    );
    malformed(
        &[&trail[..], b"garbage"].concat(),
        13,
        Flaw::Unexpected(b'g'),
    );
    malformed(&[&trail[..], b"\0\0\0\n"].concat(), 13, Flaw::Unexpected(0));
}

#[test]
fn crlf_throughout() {
    let text = String::from_utf8(trail("trace-001")).unwrap();
    malformed(text.replace('\n', "\r\n").as_bytes(), 1, Flaw::Trailing);
}

#[test]
fn members_that_are_not_the_schemas() {
    let member = |trail: &[u8]| fault(trail).1;
    let cases = [
        (
            edit(
                2,
                "\"schema_version\":\"1.0\"",
                "\"schema_version\":\"1.1\"",
            ),
            "schema_version",
        ),
        (edit(2, "\"seq\":2", "\"seq\":0"), "seq"),
        (edit(2, "\"seq\":2", "\"seq\":\"2\""), "seq"),
        (edit(2, "\"seq\":2", "\"seq\":-2"), "seq"),
        (edit(2, "\"seq\":2,", ""), "seq"),
        (edit(2, "\"seq\":2,", "\"seq\":2,\"sequel\":2,"), "trace_id"),
        (
            edit(
                2,
                "\"evidence_tier\":\"hypervisor\"",
                "\"evidence_tier\":\"rumour\"",
            ),
            "evidence_tier",
        ),
        (
            edit(
                2,
                "\"event_type\":\"sandbox_attached\"",
                "\"event_type\":\"sandbox_\"",
            ),
            "event_type",
        ),
        (
            edit(2, "\"event_id\":\"evt_0", "\"event_id\":\"evt_"),
            "event_id",
        ),
        (edit(2, "\"mono_us\":20", "\"mono_us\":-20"), "mono_us"),
        (
            edit(2, "\"prev_hash\":\"sha256:", "\"prev_hash\":\"SHA256:"),
            "prev_hash",
        ),
        (
            edit(2, "\"record_hash\":\"sha256:", "\"record_hash\":\"sha256:0"),
            "record_hash",
        ),
        (edit(2, "\"verdict\":null", "\"verdict\":{}"), "verdict"),
        (edit(2, "\"verdict\":null", "\"verdict\":true"), "verdict"),
        (
            edit(2, "\"wall_time\":\"2025-", "\"wall_time\":\"2025 "),
            "wall_time",
        ),
    ];
    for (trail, name) in cases {
        assert_eq!(member(&trail), FaultKind::Member(name));
    }
}

#[test]
fn long_lines() {
    let long = |bytes: usize| [vec![b'x'; bytes], vec![b'\n']].concat();
    let trail = trail("trace-001");
    let first = lines(&trail)[0].clone();
    for bytes in [MAX_LINE + 1, 300_000, 1_000_000] {
        for feed in [1, 0] {
            let mut trail = [first.clone(), long(bytes)].concat();
            trail.truncate(trail.len() - 1 + feed);
            let Outcome::Malformed(fault) = outcome(&trail) else {
                panic!("{bytes} {feed}");
            };
            let expected = Fault {
                seq: None,
                byte_offset: u64::try_from(first.len() + MAX_LINE).unwrap(),
                line: 2,
                what: FaultKind::TooLong,
            };
            assert_eq!(fault, expected);
        }
    }
}

#[test]
fn deep_nesting_and_nul() {
    for depth in [40, 5_000] {
        let nested = format!("\"payload\":{}", "[".repeat(depth));
        let Outcome::Malformed(fault) = outcome(&edit(2, "\"payload\":", &nested)) else {
            panic!("{depth}");
        };
        assert_eq!(fault.what, FaultKind::NotCanonical(Flaw::TooDeep));
    }
    malformed(&edit(4, "api.", "api\0"), 4, Flaw::ControlCharacter);
    malformed(
        &edit(4, "\"calls\":1", "\"calls\":\0"),
        4,
        Flaw::Unexpected(0),
    );
}

#[test]
fn nothing_is_never_valid() {
    assert_eq!(outcome(b""), Outcome::Empty);
    malformed(b"\n", 1, Flaw::End);
}

#[test]
fn a_file_is_read_like_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    write_trail(&path, "trace-001");
    let from_file = verify(File::open(&path).unwrap(), &VerifyOptions::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let from_bytes = verify(&bytes[..], &VerifyOptions::default()).unwrap();
    assert_eq!(from_file, from_bytes);
}
