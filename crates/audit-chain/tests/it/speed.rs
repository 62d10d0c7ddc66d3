//! How fast a million records are written and verified, beside a verifier
//! that parses and re-serialises, and beside openssl. Run with
//! `cargo test --release -p sandtrace-audit-chain --test it -- --ignored --nocapture speed`;
//! SANDTRACE_SPEED_RECORDS sets another number of records.

use crate::sample::{at, dns, end, identity, judged, start, verdict};
use rustix::time::{ClockId, clock_gettime};
use sandtrace_audit_chain::checkpoint::Checkpoint;
use sandtrace_audit_chain::merkle::{CompactRange, inclusion_plan, leaf_hash, verify_inclusion};
use sandtrace_audit_chain::note::{Algorithm, SigningKey};
use sandtrace_audit_chain::{Outcome, TrailWriter, VerifyOptions, verify};
use sandtrace_event::VerdictResult;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
#[ignore = "takes a minute and half a gigabyte of disk"]
fn speed() {
    let records = env::var("SANDTRACE_SPEED_RECORDS").map_or(1_000_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let writing = timed(|| write(&path, records));
    let bytes = path.metadata().unwrap().len();
    println!("{records} records, {} bytes each", bytes / records);
    let show = |name: &str, (time, cpu): (Duration, Duration)| {
        let rate = records * 1_000_000 / u64::try_from(time.as_micros()).unwrap();
        let mega = bytes / u64::try_from(time.as_micros()).unwrap();
        println!("{name:24} {time:>8.3?} {cpu:>8.3?} of CPU {rate:>9} records/s {mega:>5} MB/s");
    };
    show("write (10 ms or 64 KiB)", writing);
    show("read alone", best(|| read_all(&path)));
    for threads in [1, 2] {
        let time = best(|| check(&path, records, threads));
        show(&format!("verify, {threads} threads"), time);
    }
    println!("peak memory {} KiB", peak_memory_kib());
    show("openssl dgst -sha256", best(|| openssl(&path)));
    show("serde_json", timed(|| parse_and_reserialise(&path)));
}

/// Wall time, and CPU time of this process: other load spoils only the first.
fn timed(work: impl FnOnce()) -> (Duration, Duration) {
    let (begin, cpu) = (Instant::now(), cpu_time());
    work();
    (begin.elapsed(), cpu_time() - cpu)
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

fn best(mut work: impl FnMut()) -> (Duration, Duration) {
    (0..3).map(|_| timed(&mut work)).min().unwrap()
}

fn write(path: &Path, records: u64) {
    let begin = Instant::now();
    let mut writer = TrailWriter::create(path, identity("trace-001")).unwrap();
    writer.append(judged(0, start(), None), 0).unwrap();
    let allow = verdict(
        VerdictResult::Allow,
        Some("tool:stripe_charge"),
        "all holds",
    );
    let mut event = judged(2, dns(), Some(allow));
    for id in 2..records {
        event.observation.at = at(id);
        let now = u64::try_from(begin.elapsed().as_micros()).unwrap();
        writer.append(event.clone(), now).unwrap();
        if writer.commit_due(now) {
            writer.commit().unwrap();
        }
    }
    let end = end(&writer);
    writer.append(judged(records, end, None), 0).unwrap();
    writer.commit().unwrap();
}

fn check(path: &Path, records: u64, threads: usize) {
    let options = VerifyOptions {
        threads: NonZero::new(threads),
        ..VerifyOptions::default()
    };
    let report = verify(File::open(path).unwrap(), &options).unwrap();
    assert_eq!(report.outcome, Outcome::Intact { sealed: true });
    assert_eq!(report.records, records);
}

fn read_all(path: &Path) {
    std::io::copy(&mut File::open(path).unwrap(), &mut std::io::sink()).unwrap();
}

fn openssl(path: &Path) {
    let mut command = Command::new("openssl");
    let run = command.args(["dgst", "-sha256"]).arg(path).output();
    match run {
        Ok(output) => assert!(output.status.success()),
        Err(error) => println!("openssl cannot be run: {error}"),
    }
}

/// Less strict than the real one: neither canonical form nor members.
fn parse_and_reserialise(path: &Path) {
    let mut previous = Value::Null;
    let mut hex = String::new();
    for (index, line) in BufReader::new(File::open(path).unwrap())
        .lines()
        .enumerate()
    {
        let mut event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let stated = event
            .as_object_mut()
            .unwrap()
            .remove("record_hash")
            .unwrap();
        let mut hasher = Sha256::new();
        hasher.update(serde_json::to_vec(&event).unwrap());
        hasher.update(previous.as_str().unwrap_or_default());
        hex.clear();
        hex.push_str("sha256:");
        for byte in hasher.finalize() {
            write!(hex, "{byte:02x}").unwrap();
        }
        assert_eq!(stated, hex);
        assert_eq!(event["prev_hash"], previous);
        assert_eq!(event["seq"], index + 1);
        previous = stated;
    }
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "measures; see `speed`"]
fn speed_of_proofs() {
    const RECORDS: u64 = 10_000_000;
    const CHECKPOINTS: u32 = 1_000;
    let leaf = |index: u64| leaf_hash(&index.to_be_bytes());
    let mut tree = CompactRange::default();
    let (grow, _) = timed(|| (0..RECORDS).for_each(|index| tree.push_leaf(leaf(index))));
    println!("{RECORDS} leaves in {grow:.3?}");
    let root = tree.root().unwrap();
    let index = RECORDS / 3;
    let mut plan = inclusion_plan(index, RECORDS).unwrap();
    let (make, _) = timed(|| (0..RECORDS).for_each(|index| plan.push_leaf(leaf(index))));
    let proof = plan.finish().unwrap();
    let verified = verify_inclusion(index, &leaf(index), RECORDS, &root, &proof);
    assert_eq!(verified, Ok(()));
    println!("a proof of {} hashes in {make:.3?}", proof.len());
    let key = SigningKey::new("sandtrace/h/t", Algorithm::Ed25519, &[1; 32]).unwrap();
    let (sign, _) = timed(|| {
        for _ in 0..CHECKPOINTS {
            let root = tree.root().unwrap();
            let checkpoint = Checkpoint::new("sandtrace/h/t", RECORDS, root).unwrap();
            assert!(checkpoint.sign(&key).is_ok());
        }
    });
    println!("{:.1?} per checkpoint", sign / CHECKPOINTS);
    let checkpoint = Checkpoint::new("sandtrace/h/t", RECORDS, root).unwrap();
    let note = checkpoint.sign(&key).unwrap();
    let (open, _) = timed(|| {
        for _ in 0..CHECKPOINTS {
            assert!(Checkpoint::open(&note, key.verifier()).is_ok());
        }
    });
    println!("{:.1?} to open one", open / CHECKPOINTS);
}
