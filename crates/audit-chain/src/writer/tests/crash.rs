//! The power fails, or the process is killed, between any two steps of the
//! write order: nothing that was acknowledged is lost, and writing goes on.

use super::super::store::{FileStore, Store};
use super::super::{Existing, SegmentLimits, TrailSigner, TrailWriter, WriteError, control};
use super::{identity, judged};
use crate::note::{Algorithm, SigningKey};
use crate::segments::{self, SegmentReader};
use crate::verify::{Outcome, VerifyOptions, verify};
use proptest::prelude::*;
use sandtrace_event::{
    EndReason, Judged, SandboxDetached, Timestamp, TrailEnd, TrailStart, Verdict, VerdictResult,
    WallTime,
};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const ORIGIN: &str = "sandtrace/host-7/trace-1";

fn host() -> SigningKey {
    SigningKey::new("sandtrace/host-7", Algorithm::Ed25519, &[7; 32]).unwrap()
}

fn signer() -> TrailSigner {
    TrailSigner::new(ORIGIN, &host()).unwrap()
}

fn moment(now_us: u64) -> Timestamp {
    Timestamp {
        mono_us: now_us,
        wall: WallTime(now_us),
    }
}

fn trail_start() -> Judged {
    let json = format!(r#"{{"capture":[],"nonce":"1","origin":"{ORIGIN}","tool_version":""}}"#);
    judged(serde_json::from_str::<TrailStart>(&json).unwrap())
}

/// A record that asks for a checkpoint at once.
fn deny() -> Judged {
    let verdict = Verdict {
        policy_rule: None,
        reason: "because".to_owned(),
        result: VerdictResult::Deny,
    };
    Judged {
        verdict: Some(verdict),
        ..allow()
    }
}

fn allow() -> Judged {
    judged(SandboxDetached {
        reason: sandtrace_event::DetachReason::Duration,
    })
}

fn trail_end(writer: &TrailWriter) -> TrailEnd {
    TrailEnd {
        events: writer.counts().events(),
        reason: EndReason::Interrupted,
        reconciliation: Vec::new(),
        verdicts: writer.counts().verdicts(),
    }
}

/// What a workload does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Allow,
    Deny,
    Commit,
    /// A commit after so long that whatever is due by time is due.
    Later,
}

/// Runs a workload; `acknowledge` hears of every line that was acknowledged.
fn work(
    writer: &mut TrailWriter,
    steps: &[Step],
    mut acknowledge: impl FnMut(Vec<u8>),
) -> Result<(), WriteError> {
    let mut now_us = 0;
    let mut commit = |writer: &mut TrailWriter, now_us| -> Result<(), WriteError> {
        for sealed in writer.commit()?.iter() {
            acknowledge(sealed.line.to_vec());
        }
        for sealed in writer.upkeep(moment(now_us), now_us)?.iter() {
            acknowledge(sealed.line.to_vec());
        }
        Ok(())
    };
    for step in steps {
        now_us += 1_000;
        match step {
            Step::Allow => writer.append(allow(), now_us).map(drop)?,
            Step::Deny => writer.append(deny(), now_us).map(drop)?,
            Step::Commit => commit(writer, now_us)?,
            Step::Later => {
                now_us += 4_000_000_000;
                commit(writer, now_us)?;
                commit(writer, now_us)?;
            }
        }
    }
    Ok(())
}

/// Goes on with the trail at `path` and ends it; it must then be whole, and
/// begin with what was acknowledged.
fn recover(path: &Path, acknowledged: &[u8]) {
    let resumed = match Existing::open(path).unwrap() {
        Existing::Resumable(resumed) => resumed,
        Existing::Broken(prior) => {
            // The first record itself was cut off, or the end was reached.
            let ended = prior.reason == sandtrace_event::BreakReason::Sealed;
            assert!(ended || acknowledged.is_empty(), "{prior:?}");
            return;
        }
    };
    let identity = resumed.identity().unwrap();
    let limits = SegmentLimits::default();
    let (mut writer, session) = resumed
        .resume(identity, Some(signer()), limits, (moment(1), 1))
        .unwrap();
    writer.append(control(moment(1), session), 1).unwrap();
    let end = trail_end(&writer);
    writer.append(control(moment(2), end), 2).unwrap();
    writer.seal(moment(3), 3).unwrap();
    drop(writer);
    let files = segments::existing(path).unwrap();
    let whole = SegmentReader::open(&files).unwrap();
    let report = verify(whole, &VerifyOptions::default()).unwrap();
    assert_eq!(report.outcome, Outcome::Intact { sealed: true });
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut SegmentReader::open(&files).unwrap(), &mut bytes).unwrap();
    assert!(bytes.starts_with(acknowledged));
}

/// Files in memory of which a power failure leaves what was synced and a part
/// of the rest.
#[derive(Default)]
struct Memory {
    segments: Vec<(Vec<u8>, usize)>,
    checkpoint: (Option<String>, Option<String>, Option<String>),
    /// Steps until everything fails.
    steps: usize,
    /// This many more syncs work, then one fails alone.
    good_syncs: Option<usize>,
}

impl Memory {
    fn step(&mut self) -> io::Result<()> {
        let gone = || io::Error::other("the power is gone");
        self.steps = self.steps.checked_sub(1).ok_or_else(gone)?;
        Ok(())
    }
}

#[derive(Clone, Default)]
struct MemoryStore(Arc<Mutex<Memory>>);

impl Store for MemoryStore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        // Never all at once.
        let count = bytes.len().div_ceil(2);
        memory
            .segments
            .last_mut()
            .unwrap()
            .0
            .extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        if let Some(good) = memory.good_syncs {
            memory.good_syncs = good.checked_sub(1);
            if memory.good_syncs.is_none() {
                return Err(io::Error::other("this sync fails"));
            }
        }
        let (bytes, synced) = memory.segments.last_mut().unwrap();
        *synced = bytes.len();
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        let (segment, synced) = memory.segments.last_mut().unwrap();
        segment.truncate(usize::try_from(bytes).unwrap());
        *synced = (*synced).min(segment.len());
        Ok(())
    }

    fn next_segment(&mut self, _: &Path) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        memory.segments.push((Vec::new(), 0));
        Ok(())
    }

    fn discard(&mut self, _: &Path) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        memory.segments.pop();
        Ok(())
    }

    fn write_replacement(&mut self, _: &Path, text: &str) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        memory.checkpoint.2 = Some(text.to_owned());
        Ok(())
    }

    fn replace(&mut self, _: &Path) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        memory.checkpoint.1 = memory.checkpoint.2.take();
        Ok(())
    }

    fn sync_directory(&mut self, _: &Path) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.step()?;
        let (durable, named, _) = &mut memory.checkpoint;
        durable.clone_from(named);
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Allow),
        1 => Just(Step::Deny),
        3 => Just(Step::Commit),
        1 => Just(Step::Later),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_power_failure_loses_nothing_that_was_acknowledged(
        steps in prop::collection::vec(step(), 1..40),
        power in 0_usize..120,
        bad_sync in prop::option::of(2_usize..12),
        survives in prop::collection::vec(0.0..=1.0_f64, 12),
        renamed: bool,
    ) {
        let memory = Memory {
            segments: vec![(Vec::new(), 0)],
            steps: power,
            good_syncs: bad_sync,
            ..Memory::default()
        };
        let store = MemoryStore(Arc::new(Mutex::new(memory)));
        let limits = SegmentLimits { bytes: Some(6_000), age_us: None };
        let path = Path::new("trace.jsonl");
        let writer = TrailWriter::over(Box::new(store.clone()), path, identity(), Some(signer()));
        let mut writer = writer.with_segments(limits);
        let mut acknowledged = Vec::new();
        writer.append(trail_start(), 0).unwrap();
        // Where the power fails this ends early, as it should.
        let _ = work(&mut writer, &steps, |line| acknowledged.extend(line));
        drop(writer);
        let memory = store.0.lock().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.jsonl");
        let pairs = memory.segments.iter().zip(survives.iter().chain(std::iter::repeat(&1.0)));
        for (number, ((bytes, synced), part)) in (1..).zip(pairs) {
            let unsynced = u32::try_from(bytes.len() - synced).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
            let kept = synced + (f64::from(unsynced) * part) as usize;
            fs::write(segments::path_of(&path, number), &bytes[..kept]).unwrap();
        }
        let note = if renamed { &memory.checkpoint.1 } else { &memory.checkpoint.0 };
        if let Some(note) = note {
            fs::write(segments::checkpoint_path(&path), note).unwrap();
        }
        recover(&path, &acknowledged);
    }
}

/// Kills this process in front of one of its steps.
struct KillingStore {
    inner: FileStore,
    steps: usize,
}

impl KillingStore {
    fn step(&mut self) {
        match self.steps.checked_sub(1) {
            Some(left) => self.steps = left,
            None => {
                rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                )
                .unwrap();
            }
        }
    }
}

impl Store for KillingStore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.step();
        self.inner.write(&bytes[..bytes.len().div_ceil(2)])
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step();
        self.inner.sync()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.step();
        self.inner.truncate(bytes)
    }

    fn next_segment(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        self.inner.next_segment(path)
    }

    fn discard(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        self.inner.discard(path)
    }

    fn write_replacement(&mut self, path: &Path, text: &str) -> io::Result<()> {
        self.step();
        self.inner.write_replacement(path, text)
    }

    fn replace(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        self.inner.replace(path)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        self.inner.sync_directory(path)
    }
}

const CHILD_TRAIL: &str = "SANDTRACE_TEST_TRAIL";
const CHILD_STEPS: &str = "SANDTRACE_TEST_STEPS";

/// Not a test of its own: what the next one kills.
#[test]
fn child_of_kill_9() {
    let (Some(path), Ok(steps)) = (std::env::var_os(CHILD_TRAIL), std::env::var(CHILD_STEPS))
    else {
        return;
    };
    let path = PathBuf::from(path);
    let store = KillingStore {
        inner: FileStore::create(&path).unwrap(),
        steps: steps.parse().unwrap(),
    };
    let limits = SegmentLimits {
        bytes: Some(8_000),
        age_us: None,
    };
    let writer = TrailWriter::over(Box::new(store), &path, identity(), Some(signer()));
    let mut writer = writer.with_segments(limits);
    writer.append(trail_start(), 0).unwrap();
    let steps = [
        Step::Allow,
        Step::Deny,
        Step::Commit,
        Step::Commit,
        Step::Later,
    ]
    .repeat(4);
    let mut tell = |line: Vec<u8>| {
        let mut out = io::stdout().lock();
        out.write_all(b"acknowledged ").unwrap();
        out.write_all(&line).unwrap();
        out.flush().unwrap();
    };
    work(&mut writer, &steps, &mut tell).unwrap();
    let end = trail_end(&writer);
    writer.append(control(moment(5), end), 5).unwrap();
    for sealed in writer.seal(moment(6), 6).unwrap().iter() {
        tell(sealed.line.to_vec());
    }
}

#[test]
fn kill_9_at_every_step_loses_nothing_that_was_acknowledged() {
    let mut survived = false;
    let mut steps = 0;
    while !survived {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.jsonl");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "writer::tests::crash::child_of_kill_9",
                "--nocapture",
            ])
            .env(CHILD_TRAIL, &path)
            .env(CHILD_STEPS, steps.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
            if let Some(line) = line.unwrap().strip_prefix(b"acknowledged ") {
                acknowledged.extend_from_slice(line);
                acknowledged.push(b'\n');
            }
        }
        survived = child.wait().unwrap().success();
        recover(&path, &acknowledged);
        steps += 1;
        assert!(steps < 400, "the workload has no end");
    }
    // Every kind of step was met: files, checkpoints, keys and segments.
    assert!(steps > 60, "{steps} steps only");
}
