//! A file that fails in every way, at every step.

use super::store::Store;
use super::{TrailIdentity, TrailWriter, WriteError};
use sandtrace_event::{
    EvidenceTier, Judged, Observation, SandboxDetached, Timestamp, TrailStart, WallTime,
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

fn judged(payload: impl Into<sandtrace_event::Payload>) -> Judged {
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

/// A writer with one acknowledged line, the disk under it, and that line.
fn writer() -> (TrailWriter, FakeStore, Vec<u8>) {
    let store = FakeStore::default();
    let identity = TrailIdentity {
        agent_id: "a".to_owned(),
        sandbox_id: "s".to_owned(),
        trace_id: "t".to_owned(),
        nonce: 1,
    };
    let path = Path::new("trace.jsonl");
    let mut writer = TrailWriter::over(Box::new(store.clone()), path, identity);
    let line = writer.append(&start(), 0).unwrap().line;
    writer.commit().unwrap();
    (writer, store, line)
}

#[test]
fn short_writes_and_interruptions_are_no_failures() {
    let (mut writer, store, first) = writer();
    {
        let mut disk = store.0.lock().unwrap();
        disk.chunk = Some(7);
        disk.interruptions = 3;
    }
    let second = writer.append(&second(), 0).unwrap().line;
    writer.commit().unwrap();
    let disk = store.0.lock().unwrap();
    assert_eq!(disk.bytes, [first, second].concat());
    assert_eq!(disk.synced, disk.bytes.len());
}

#[test]
fn a_full_disk_leaves_the_acknowledged_lines_wherever_it_strikes() {
    let length = {
        let (mut writer, ..) = writer();
        writer.append(&second(), 0).unwrap().line.len()
    };
    for room in 0..length {
        let (mut writer, store, first) = writer();
        store.0.lock().unwrap().room = Some(first.len() + room);
        writer.append(&second(), 0).unwrap();
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
    writer.append(&second(), 0).unwrap();
    writer.commit().unwrap_err();
    store.0.lock().unwrap().room = None;
    assert!(matches!(writer.commit(), Err(WriteError::Failed { .. })));
    let error = writer.append(&second(), 0).unwrap_err();
    assert!(matches!(error, WriteError::Failed { .. }));
    assert_eq!(store.0.lock().unwrap().bytes, first);
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let (mut writer, store, first) = writer();
    store.0.lock().unwrap().sync_fails = Some(io::ErrorKind::Other);
    let second = writer.append(&second(), 0).unwrap().line;
    let error = writer.commit().unwrap_err();
    let WriteError::Io { doing, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*doing, "fdatasync of");
    assert!(matches!(writer.commit(), Err(WriteError::Failed { .. })));
    // Whole lines, of which only the first is known to be durable.
    let disk = store.0.lock().unwrap();
    assert_eq!(disk.bytes, [first.clone(), second].concat());
    assert_eq!(disk.synced, first.len());
}

#[test]
fn a_disk_that_is_full_only_at_the_sync_is_full() {
    let (mut writer, store, first) = writer();
    store.0.lock().unwrap().sync_fails = Some(io::ErrorKind::QuotaExceeded);
    writer.append(&second(), 0).unwrap();
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
    writer.append(&second(), 0).unwrap();
    let WriteError::Io { doing, .. } = writer.commit().unwrap_err() else {
        panic!();
    };
    assert_eq!(doing, "taking back a partial write to");
}
