//! A file that fails in every way, at every step.

mod crash;

use super::store::Store;
use super::{TrailIdentity, TrailWriter, WriteError};
use crate::line::MAX_LINE;
use sandtrace_event::{
    DnsQuery, EventType, EvidenceTier, GapCause, Judged, Layer, Observation, Payload,
    SandboxDetached, Timestamp, TrailStart, Verdict, VerdictResult, WallTime,
};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    synced: usize,
    /// Room for so many bytes; a write takes what fits, the next one fails.
    room: Option<usize>,
    /// Largest number of bytes that one write takes.
    chunk: Option<usize>,
    interruptions: usize,
    sync_fails: Option<io::ErrorKind>,
    truncate_fails: bool,
    /// What became of the segments before this one.
    earlier: Vec<Vec<u8>>,
}

#[derive(Clone, Default)]
struct FakeStore(Arc<Mutex<Disk>>);

impl Store for FakeStore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        if disk.interruptions > 0 {
            disk.interruptions -= 1;
            return Err(io::ErrorKind::Interrupted.into());
        }
        let room = disk.room.map_or(usize::MAX, |room| room - disk.bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(room).min(disk.chunk.unwrap_or(usize::MAX));
        disk.bytes.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if let Some(kind) = disk.sync_fails.take() {
            return Err(kind.into());
        }
        disk.synced = disk.bytes.len();
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.truncate_fails {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        disk.bytes.truncate(bytes.try_into().unwrap());
        Ok(())
    }

    fn next_segment(&mut self, _: &Path) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let bytes = std::mem::take(&mut disk.bytes);
        disk.earlier.push(bytes);
        disk.synced = 0;
        Ok(())
    }

    fn discard(&mut self, _: &Path) -> io::Result<()> {
        self.0.lock().unwrap().bytes.clear();
        Ok(())
    }

    fn write_replacement(&mut self, _: &Path, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn replace(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

fn start() -> Judged {
    let json = r#"{"capture":[],"nonce":"","origin":"","tool_version":""}"#;
    judged(serde_json::from_str::<TrailStart>(json).unwrap())
}

fn second() -> Judged {
    judged(SandboxDetached {
        reason: sandtrace_event::DetachReason::Duration,
    })
}

fn judged(payload: impl Into<Payload>) -> Judged {
    Judged {
        observation: Observation {
            at: Timestamp {
                mono_us: 1,
                wall: WallTime(1),
            },
            payload: payload.into(),
            tier: EvidenceTier::Hypervisor,
        },
        verdict: None,
    }
}

fn identity() -> TrailIdentity {
    TrailIdentity {
        agent_id: "a".into(),
        sandbox_id: "s".into(),
        trace_id: "t".into(),
        nonce: 1,
    }
}

/// A writer with one acknowledged line, the disk under it, and that line.
fn writer() -> (TrailWriter, FakeStore, Vec<u8>) {
    let store = FakeStore::default();
    let path = Path::new("trace.jsonl");
    let mut writer = TrailWriter::over(Box::new(store.clone()), path, identity(), None);
    let line = writer.append(start(), 0).unwrap().line.to_vec();
    writer.commit().unwrap();
    (writer, store, line)
}

/// A sandbox must not be able to end its own trail.
#[test]
fn a_record_that_fits_no_line_becomes_a_gap_with_its_verdict() {
    let (mut writer, _, _) = writer();
    let mut long = judged(DnsQuery {
        answers: vec!["\u{1}".repeat(200); 1000],
        answers_left_out: None,
        findings: Vec::new(),
        latency_us: None,
        matched: false,
        name: "long.example".to_owned(),
        qtype: "A".to_owned(),
        questions: None,
        rcode: None,
        resolver: [10, 0, 0, 1].into(),
        resolver_accepted: false,
        resolver_port: 53,
    });
    long.verdict = Some(Verdict {
        policy_rule: None,
        reason: "\u{1}".repeat(100_000),
        result: VerdictResult::Deny,
    });
    let sealed = writer.append(long, 0).unwrap();
    assert!(sealed.line.len() <= MAX_LINE);
    let Payload::CaptureGap(gap) = &sealed.event.payload else {
        panic!("{:?}", sealed.event.payload)
    };
    assert_eq!(
        (gap.cause, gap.layer),
        (GapCause::RecordTooLong, Layer::Network)
    );
    assert!(gap.detail.contains("dns_query"), "{}", gap.detail);
    let verdict = sealed.event.verdict.as_ref().unwrap();
    assert_eq!(verdict.result, VerdictResult::Deny);
    // What follows is chained to it.
    writer.append(second(), 0).unwrap();
    assert_eq!(writer.commit().unwrap().len(), 2);
}

#[test]
fn short_writes_and_interruptions_are_no_failures() {
    let (mut writer, store, first) = writer();
    {
        let mut disk = store.0.lock().unwrap();
        disk.chunk = Some(7);
        disk.interruptions = 3;
    }
    let second = writer.append(second(), 0).unwrap().line.to_vec();
    writer.commit().unwrap();
    let disk = store.0.lock().unwrap();
    assert_eq!(disk.bytes, [first, second].concat());
    assert_eq!(disk.synced, disk.bytes.len());
}

#[test]
fn a_full_disk_leaves_the_acknowledged_lines_wherever_it_strikes() {
    let length = {
        let (mut writer, ..) = writer();
        writer.append(second(), 0).unwrap().line.len()
    };
    for room in 0..length {
        let (mut writer, store, first) = writer();
        store.0.lock().unwrap().room = Some(first.len() + room);
        writer.append(second(), 0).unwrap();
        let error = writer.commit().unwrap_err();
        let expected = u64::try_from(first.len()).unwrap();
        assert!(
            matches!(error, WriteError::Full { acknowledged, .. } if acknowledged == expected),
            "{error}"
        );
        let disk = store.0.lock().unwrap();
        assert_eq!(disk.bytes, first);
        assert_eq!(disk.synced, first.len());
    }
}

#[test]
fn nothing_is_written_after_a_failure() {
    let (mut writer, store, first) = writer();
    store.0.lock().unwrap().room = Some(first.len());
    writer.append(second(), 0).unwrap();
    writer.commit().unwrap_err();
    store.0.lock().unwrap().room = None;
    assert!(matches!(writer.commit(), Err(WriteError::Failed { .. })));
    let error = writer.append(second(), 0).unwrap_err();
    assert!(matches!(error, WriteError::Failed { .. }));
    assert_eq!(store.0.lock().unwrap().bytes, first);
}

#[test]
fn a_file_that_cannot_be_synced_is_left_for_the_next_segment() {
    for truncate_fails in [false, true] {
        let (mut writer, store, first) = writer();
        {
            let mut disk = store.0.lock().unwrap();
            disk.sync_fails = Some(io::ErrorKind::Other);
            disk.truncate_fails = truncate_fails;
        }
        writer.append(second(), 0).unwrap();
        let acknowledged = writer.commit().unwrap();
        let types: Vec<_> = acknowledged.iter().map(|it| it.event.event_type).collect();
        assert_eq!(types, [EventType::SegmentStart, EventType::SandboxDetached]);
        let lines: Vec<_> = acknowledged.iter().map(|it| it.line).collect();
        writer.append(second(), 0).unwrap();
        let next = writer.commit().unwrap();
        let last = next.iter().next().unwrap();
        assert_eq!(last.event.seq.0, 4);
        let disk = store.0.lock().unwrap();
        assert_eq!(disk.bytes, [&lines.concat(), last.line].concat());
        assert_eq!(disk.synced, disk.bytes.len());
        let left = disk.earlier.concat();
        if truncate_fails {
            assert!(left.starts_with(&first) && left.len() > first.len());
        } else {
            assert_eq!(left, first);
        }
    }
}

#[test]
fn a_trail_that_was_never_durable_cannot_go_on() {
    let store = FakeStore::default();
    store.0.lock().unwrap().sync_fails = Some(io::ErrorKind::Other);
    let path = Path::new("trace.jsonl");
    let mut writer = TrailWriter::over(Box::new(store), path, identity(), None);
    writer.append(start(), 0).unwrap();
    let error = writer.commit().unwrap_err();
    assert!(matches!(
        error,
        WriteError::Io {
            doing: "fdatasync of",
            ..
        }
    ));
    assert!(matches!(writer.commit(), Err(WriteError::Failed { .. })));
}

#[test]
fn a_disk_that_is_full_only_at_the_sync_is_full() {
    let (mut writer, store, first) = writer();
    store.0.lock().unwrap().sync_fails = Some(io::ErrorKind::QuotaExceeded);
    writer.append(second(), 0).unwrap();
    let error = writer.commit().unwrap_err();
    assert!(matches!(error, WriteError::Full { .. }), "{error}");
    assert_eq!(store.0.lock().unwrap().bytes, first);
}

#[test]
fn a_partial_write_that_cannot_be_taken_back_is_told() {
    let (mut writer, store, first) = writer();
    {
        let mut disk = store.0.lock().unwrap();
        disk.room = Some(first.len() + 5);
        disk.truncate_fails = true;
    }
    writer.append(second(), 0).unwrap();
    let WriteError::Io { doing, .. } = writer.commit().unwrap_err() else {
        panic!();
    };
    assert_eq!(doing, "taking back a partial write to");
}
