//! What trails say of the stand-ins: when each was attached, and whether
//! anything of it is missing.

use anyhow::{Context as _, Result};
use sandtrace_event::{AuditEvent, FlowPhase, Payload};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// One sandbox by its trail.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Trails that it has; more than one is one too many.
    pub(super) trails: usize,
    /// When it was attached first.
    pub(super) attached: Option<SystemTime>,
    /// When the first packet's record was made.
    pub(super) packet: Option<SystemTime>,
    pub(super) records: u64,
    /// Packets by port, of flows that were closed.
    pub(super) packets: BTreeMap<u16, u64>,
    pub(super) gaps: u64,
    /// Whether it has its last record, and the sums agree with the kernel's.
    pub(super) ended: bool,
    pub(super) reconciled: bool,
}

/// Every sandbox of a directory, by id.
pub(super) fn read(dir: &Path) -> Result<BTreeMap<String, Told>> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for entry in fs::read_dir(dir).context("listing trails")? {
        let name = entry.context("listing trails")?.file_name();
        let name = name.to_string_lossy();
        let Some((id, _)) = name.split_once('.').filter(|_| name.ends_with(".jsonl")) else {
            continue;
        };
        let told = told.entry(id.to_owned()).or_default();
        told.trails += 1;
        told.add(&dir.join(&*name))?;
    }
    Ok(told)
}

/// Records of all trails of a directory.
pub(super) fn records(dir: &Path) -> Result<u64> {
    let mut records = 0;
    for entry in fs::read_dir(dir).context("listing trails")? {
        let path = entry.context("listing trails")?.path();
        if path.extension().is_some_and(|it| it == "jsonl") {
            let bytes = fs::read(&path).context("reading a trail")?;
            records += bytes.iter().filter(|byte| **byte == b'\n').count();
        }
    }
    u64::try_from(records).context("counting records")
}

impl Told {
    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).context("opening a trail")?;
        for line in BufReader::new(file).split(b'\n') {
            let line = line.context("reading a trail")?;
            // The last line may be on its way.
            let Ok(event) = serde_json::from_slice::<AuditEvent>(&line) else {
                continue;
            };
            self.note(&event);
        }
        Ok(())
    }

    fn note(&mut self, event: &AuditEvent) {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(event.wall_time.0);
        self.records += 1;
        match &event.payload {
            Payload::SandboxAttached(_) => {
                self.attached.get_or_insert(wall);
            }
            Payload::CaptureGap(_) => self.gaps += 1,
            Payload::TrailEnd(end) => {
                self.ended = true;
                // Where nothing was compared nothing agrees.
                let sums = &end.reconciliation;
                self.reconciled = !sums.is_empty() && sums.iter().all(|it| it.matches);
            }
            Payload::NetworkEgress(flow) => {
                self.packet.get_or_insert(wall);
                if let Some(port) = flow.dst_port.filter(|_| flow.phase == FlowPhase::Close) {
                    *self.packets.entry(port).or_default() += flow.packets_sent.0;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandtrace_event::SCHEMA_VERSION;
    use serde_json::{Value, json};

    fn record(seconds: u64, kind: &str, payload: &Value) -> String {
        let digest = format!("sha256:{}", "0".repeat(64));
        let record = json!({
            "agent_id": "box", "event_id": "evt_0", "event_type": kind,
            "evidence_tier": "hypervisor", "mono_us": seconds * 1_000_000,
            "payload": payload, "prev_hash": digest, "record_hash": digest,
            "sandbox_id": "box", "schema_version": SCHEMA_VERSION, "seq": 2, "trace_id": "box",
            "verdict": null, "wall_time": format!("2026-01-01T00:00:0{seconds}.000000000Z"),
        });
        format!("{record}\n")
    }

    fn attached(seconds: u64) -> String {
        let payload = json!({"provider": "firecracker"});
        record(seconds, "sandbox_attached", &payload)
    }

    fn ended() -> String {
        let payload = json!({"events": {}, "reason": "sandbox_ended", "verdicts": {}});
        record(9, "trail_end", &payload)
    }

    fn told(lines: &[String]) -> Told {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("box.1-2.3.jsonl"), lines.concat()).unwrap();
        read(dir.path()).unwrap().remove("box").unwrap()
    }

    #[test]
    fn what_is_told_again_is_attached_since_the_first_time() {
        let (once, again) = (told(&[attached(1)]), told(&[attached(1), attached(2)]));
        assert_eq!((once.records, again.records), (1, 2));
        assert!(once.attached.is_some());
        assert_eq!(again.attached, once.attached);
    }

    #[test]
    fn nothing_agrees_where_nothing_was_compared() {
        let told = told(&[ended()]);
        assert!(told.ended && !told.reconciled);
    }
}
