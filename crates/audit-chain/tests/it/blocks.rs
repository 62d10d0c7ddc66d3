//! Trails of many blocks: the answer does not depend on where a block ends,
//! on the number of threads, or on how the bytes arrive.

use crate::merkle::{naive_root, recorded_leaves};
use crate::naive;
use crate::sample::{dns, end, identity, judged, lines, start};
use sandtrace_audit_chain::verify::FaultKind;
use sandtrace_audit_chain::{Outcome, Report, TrailWriter, VerifyOptions, verify};
use std::io::{self, Read};
use std::num::NonZero;
use std::sync::LazyLock;

const RECORDS: u64 = 2_000;
/// The verifier reads 256 KiB at a time.
const BLOCK: usize = 256 * 1024;

static LINES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    writer.append(judged(1, start(), None), 0).unwrap();
    for at in 2..RECORDS {
        writer.append(judged(at, dns(), None), 0).unwrap();
    }
    let end = end(&writer);
    writer.append(judged(RECORDS, end, None), 0).unwrap();
    writer.commit().unwrap();
    lines(&std::fs::read(path).unwrap())
});

/// Gives its bytes in pieces of 1, 2, 3, … bytes, now and then interrupted.
struct Dribble<'a> {
    rest: &'a [u8],
    reads: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let room_len = room.len().min(self.reads);
        self.rest.read(&mut room[..room_len])
    }
}

#[track_caller]
fn report(trail: &[u8]) -> Report {
    let with = |threads| VerifyOptions {
        threads: NonZero::new(threads),
        ..VerifyOptions::default()
    };
    let report = verify(trail, &with(1)).unwrap();
    assert_eq!(verify(trail, &with(3)).unwrap(), report);
    report
}

/// Numbers of lines, from 0, that a block's end cuts or touches.
fn lines_at_block_ends() -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    for (number, line) in LINES.iter().enumerate() {
        if at / BLOCK != (at + line.len()) / BLOCK {
            ends.push(number);
        }
        at += line.len();
    }
    ends
}

#[track_caller]
fn check(change: impl FnOnce(&mut Vec<Vec<u8>>), line: usize, code: &str) {
    let mut lines = LINES.clone();
    change(&mut lines);
    let Outcome::Tampered(fault) = report(&lines.concat()).outcome else {
        panic!("not found");
    };
    let before: usize = lines[..line].iter().map(Vec::len).sum();
    assert_eq!(fault.line, u64::try_from(line + 1).unwrap());
    assert_eq!(fault.byte_offset, u64::try_from(before).unwrap());
    assert_eq!(fault.what.code(), code);
}

#[test]
fn a_trail_of_many_blocks_is_intact_however_it_arrives() {
    let trail = LINES.concat();
    assert!(trail.len() > 4 * BLOCK);
    let whole = report(&trail);
    assert_eq!(whole.outcome, Outcome::Intact { sealed: true });
    assert_eq!(whole.records, RECORDS);
    let dribble = Dribble {
        rest: &trail,
        reads: 0,
    };
    let options = VerifyOptions::default();
    assert_eq!(verify(dribble, &options).unwrap(), whole);
    let (class, line) = naive::verify(&trail);
    assert_eq!((class, line), (naive::Class::Intact, LINES.len()));
}

#[test]
fn faults_at_the_ends_of_blocks_are_found_where_they_are() {
    let ends = lines_at_block_ends();
    assert!(ends.len() >= 4);
    for end in ends {
        for line in end..=end + 1 {
            check(|lines| drop(lines.remove(line)), line, "seq");
            check(|lines| lines.swap(line, line + 1), line, "seq");
            check(|lines| lines.insert(line, lines[3].clone()), line, "seq");
            let edit = |lines: &mut Vec<Vec<u8>>| {
                let at = lines[line].len() - 5;
                lines[line][at] ^= 1;
            };
            check(edit, line, "record_hash");
        }
    }
}

#[test]
fn the_tree_holds_the_records_before_a_fault() {
    let leaves = recorded_leaves(&LINES);
    let check = |trail: &[u8], records: usize| {
        let report = report(trail);
        assert_eq!(report.tree.end(), report.records);
        assert_eq!(report.records, u64::try_from(records).unwrap());
        assert_eq!(report.tree.root(), Some(naive_root(&leaves[..records])));
    };
    check(&LINES.concat(), LINES.len());
    check(&[], 0);
    for end in lines_at_block_ends() {
        for line in [end - 1, end, end + 1] {
            check(&LINES[..line].concat(), line);
            let mut lines = LINES.clone();
            lines.swap(line, line + 1);
            check(&lines.concat(), line);
        }
    }
}

#[test]
fn the_first_of_many_faults_is_told() {
    for step in [1, 2, 500] {
        let change = |lines: &mut Vec<Vec<u8>>| {
            for line in lines.iter_mut().skip(700).step_by(step) {
                let at = line.len() - 5;
                line[at] ^= 1;
            }
        };
        check(change, 700, "record_hash");
    }
}

#[test]
fn records_after_the_trail_end_are_found() {
    let last = LINES.len() - 1;
    check(
        |lines| lines.push(lines[last].clone()),
        last + 1,
        "after_end",
    );
}

#[test]
fn totals_of_another_trail_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    writer.append(judged(1, start(), None), 0).unwrap();
    let end = end(&writer);
    writer.append(judged(2, dns(), None), 0).unwrap();
    writer.append(judged(3, end, None), 0).unwrap();
    writer.commit().unwrap();
    let Outcome::Tampered(fault) = report(&std::fs::read(path).unwrap()).outcome else {
        panic!("not found");
    };
    assert_eq!((fault.line, fault.what), (3, FaultKind::Totals));
}

#[test]
fn an_input_that_fails_is_an_error() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let trail = LINES.concat();
            let mut rest = &trail[self.0..];
            if self.0 > 2 * BLOCK {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let count = rest.read(room)?;
            self.0 += count;
            Ok(count)
        }
    }
    let error = verify(Fails(0), &VerifyOptions::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
