//! What the writer leaves on disk, and when.

use crate::sample::{dns, end, events, flow_named, identity, judged, lines, start, write_trail};
use sandtrace_audit_chain::jcs::to_vec;
use sandtrace_audit_chain::{MAX_LINE, TrailReader, TrailWriter, WriteError};
use sandtrace_event::{Count, EventType, VerdictResult};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    (dir, path)
}

#[test]
fn every_line_is_the_canonical_form_of_its_event() {
    let (_dir, path) = place();
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    let mut expected = Vec::new();
    for event in events() {
        let sealed = writer.append(event.clone(), 0).unwrap();
        let mut canonical = to_vec(sealed.event).unwrap();
        canonical.push(b'\n');
        assert_eq!(sealed.line, canonical);
        assert_eq!(sealed.event.observation(), event.observation);
        let sealed = sealed.event.clone();
        let head = writer.head().unwrap();
        assert_eq!(Count(head.seq), sealed.seq);
        assert_eq!(head.record_hash, sealed.record_hash);
        expected.push(sealed);
    }
    writer.commit().unwrap();
    let mut reader = TrailReader::new(File::open(&path).unwrap());
    for event in expected {
        assert_eq!(reader.next_event().unwrap(), Some(event));
    }
    assert_eq!(reader.next_event().unwrap(), None);
}

#[test]
fn nothing_is_written_before_a_commit() {
    let (_dir, path) = place();
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    let sealed = writer.append(judged(10, start(), None), 0).unwrap();
    let line = sealed.line.to_vec();
    assert_eq!(fs::read(&path).unwrap(), b"");
    writer.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), line);
    writer.append(judged(20, dns(), None), 0).unwrap();
    drop(writer);
    assert_eq!(fs::read(&path).unwrap(), line);
}

#[test]
fn the_file_is_the_owners_alone() {
    let (_dir, path) = place();
    write_trail(&path, "trace-001");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_trail_without_a_record_leaves_no_file() {
    let (_dir, path) = place();
    let writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    assert!(path.exists());
    drop(writer);
    assert!(!path.exists());
    // A file that took its place meanwhile is somebody else's.
    let writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"").unwrap();
    drop(writer);
    assert!(path.exists());
}

#[test]
fn a_path_that_is_taken_is_refused() {
    let (dir, path) = place();
    write_trail(&path, "trace-001");
    let before = fs::read(&path).unwrap();
    let error = TrailWriter::create(&path, identity("trace-002"))
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "trail {} exists; choose another path or move it away",
            path.display()
        )
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    // A link counts as taken also where it leads nowhere.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let error = TrailWriter::create(&link, identity("trace-002"))
        .err()
        .unwrap();
    assert!(matches!(error, WriteError::Exists { .. }));
}

#[test]
fn a_directory_that_is_missing_is_told() {
    let (dir, _) = place();
    let path = dir.path().join("none/trace.jsonl");
    let error = TrailWriter::create(&path, identity("trace-001"))
        .err()
        .unwrap();
    let WriteError::Io { doing, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*doing, "creating");
}

#[test]
fn groups_wait_ten_milliseconds_or_64_kib() {
    let (_dir, path) = place();
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    assert_eq!(writer.commit_deadline_us(), None);
    writer.append(judged(10, start(), None), 1_000).unwrap();
    writer.append(judged(20, dns(), None), 5_000).unwrap();
    assert_eq!(writer.commit_deadline_us(), Some(11_000));
    assert!(!writer.commit_due(10_999));
    assert!(writer.commit_due(11_000));
    writer.commit().unwrap();
    assert_eq!(writer.commit_deadline_us(), None);
    assert!(!writer.commit_due(u64::MAX));
    let mut waiting = 0;
    while !writer.commit_due(20_000) {
        waiting += writer
            .append(judged(30, dns(), None), 20_000)
            .unwrap()
            .line
            .len();
    }
    assert!((64 * 1024..66 * 1024).contains(&waiting), "{waiting}");
    writer.commit().unwrap();
}

#[test]
fn records_come_in_order() {
    let (_dir, path) = place();
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    let refused = |writer: &mut TrailWriter, event| {
        let before = writer.head();
        let error = writer.append(event, 0).unwrap_err();
        assert!(matches!(error, WriteError::OutOfOrder { .. }), "{error}");
        assert_eq!(writer.head(), before);
    };
    refused(&mut writer, judged(10, dns(), None));
    writer.append(judged(10, start(), None), 0).unwrap();
    refused(&mut writer, judged(20, start(), None));
    let end = end(&writer);
    writer.append(judged(20, end.clone(), None), 0).unwrap();
    refused(&mut writer, judged(30, dns(), None));
    refused(&mut writer, judged(30, end, None));
}

#[test]
fn an_event_that_has_no_line_is_a_gap_and_the_chain_goes_on() {
    let (_dir, path) = place();
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    writer.append(judged(10, start(), None), 0).unwrap();
    let empty = judged(20, flow_named(""), None);
    let base = {
        let dir = tempfile::tempdir().unwrap();
        let mut other = TrailWriter::create(&dir.path().join("t"), identity("trace-001")).unwrap();
        other.append(judged(10, start(), None), 0).unwrap();
        other.append(empty, 0).unwrap().line.len() - 1
    };
    let room = MAX_LINE - base;
    let too_long = judged(20, flow_named(&"x".repeat(room + 1)), None);
    let longest = judged(20, flow_named(&"x".repeat(room)), None);
    let sealed = writer.append(longest, 0).unwrap();
    assert_eq!(sealed.line.len(), MAX_LINE + 1);
    let gap = writer.append(too_long, 0).unwrap();
    assert!(gap.line.len() <= MAX_LINE + 1);
    assert!(matches!(
        gap.event.payload,
        sandtrace_event::Payload::CaptureGap(_)
    ));
    let end = end(&writer);
    writer.append(judged(30, end, None), 0).unwrap();
    writer.commit().unwrap();
    let outcome = crate::attacks::outcome(&fs::read(&path).unwrap());
    assert_eq!(
        outcome,
        sandtrace_audit_chain::Outcome::Intact { sealed: true }
    );
}

#[test]
fn counts_are_those_of_the_records() {
    let (_dir, path) = place();
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    for event in events() {
        writer.append(event, 0).unwrap();
    }
    let counts = writer.counts();
    assert_eq!(counts.of_type(EventType::CaptureGap), 3);
    assert_eq!(counts.of_type(EventType::TrailEnd), 0);
    assert_eq!(counts.of_verdict(VerdictResult::Allow), 2);
    assert_eq!(counts.of_verdict(VerdictResult::Deny), 1);
    assert_eq!(
        counts.events().values().map(|count| count.0).sum::<u64>(),
        11
    );
}

#[test]
fn event_ids_sort_with_time() {
    let (_dir, path) = place();
    write_trail(&path, "trace-001");
    let trail = fs::read(&path).unwrap();
    let mut reader = TrailReader::new(&trail[..]);
    let mut ids = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        ids.push(event.event_id.as_str().to_owned());
    }
    assert_eq!(ids.len(), lines(&trail).len());
    assert!(ids.is_sorted());
}
