//! How fast records are appended, signed and made durable, beside a plain
//! write and fdatasync of the same bytes.

use crate::Options;
use crate::statistics::{median, quantile};
use crate::verify::{ORIGIN, control, end, event, identity, moment, start, to_f64};
use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use sandtrace_audit_chain::note::{Algorithm, SigningKey};
use sandtrace_audit_chain::{Batch, TrailSigner, TrailWriter};
use sandtrace_event::Judged;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Records of a run.
const RECORDS: u64 = 300_000;

/// What a run took.
struct Took {
    wall: Duration,
    cpu: Duration,
    /// Milliseconds from each record's append to its acknowledgement.
    waits_ms: Vec<f64>,
    /// Sizes of the writes, in bytes.
    writes: Vec<usize>,
}

/// Appends as fast as it goes, which is what a backlog is.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!(
        "append: {RECORDS} records as fast as it goes, medians of {} runs",
        options.runs
    );
    let directory = tempfile::tempdir().context("making a directory for the trail")?;
    let events: Vec<Judged> = (1..=4096).map(event).collect();
    let mut rates = Vec::new();
    let mut cpu_rates = Vec::new();
    let mut waits = Vec::new();
    let mut plain_rates = Vec::new();
    let mut size = 0;
    for run in 0..options.runs {
        let trail = directory.path().join(format!("{run}.jsonl"));
        let took = append(&trail, &events)?;
        rates.push(to_f64(RECORDS) / took.wall.as_secs_f64());
        cpu_rates.push(to_f64(RECORDS) / took.cpu.as_secs_f64());
        waits.push(quantile(took.waits_ms, 0.99));
        size = fs::metadata(&trail)?.len();
        let plain = write_plainly(&trail, &took.writes)?;
        plain_rates.push(to_f64(RECORDS) / plain.as_secs_f64());
        fs::remove_file(&trail)?;
    }
    println!(
        "  {} bytes a record; checkpoints each 1,024",
        size / RECORDS
    );
    println!(
        "  records/s             {:10.0}",
        median(rates.iter().copied())
    );
    println!(
        "  records/s of CPU      {:10.0}  (one core: encode, hash, sign, write, sync)",
        median(cpu_rates)
    );
    println!("  p99 until durable, ms {:10.2}", median(waits));
    println!(
        "  plain write+fdatasync {:10.0}  records/s, the same bytes in the same writes",
        median(plain_rates.iter().copied())
    );
    Ok(())
}

fn append(path: &Path, events: &[Judged]) -> Result<Took> {
    let host = SigningKey::new("sandtrace/bench", Algorithm::Ed25519, &[1; 32])?;
    let signer = TrailSigner::new(ORIGIN, &host)?;
    let mut writer = TrailWriter::create_signed(path, identity(), signer)?;
    let (began, cpu) = (Instant::now(), cpu_time());
    let now_us = || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut took = Took {
        wall: Duration::ZERO,
        cpu: Duration::ZERO,
        waits_ms: Vec::new(),
        writes: Vec::new(),
    };
    let mut appended = Vec::new();
    let acknowledge = |took: &mut Took, appended: &mut Vec<u64>, records: &Batch| {
        let now = now_us();
        took.writes
            .push(records.iter().map(|sealed| sealed.line.len()).sum());
        let waited = |at: u64| to_f64(now.saturating_sub(at)) / 1000.0;
        took.waits_ms.extend(appended.drain(..).map(waited));
    };
    writer.append(control(0, start().into()), now_us())?;
    for event in events.iter().cycle().take(usize::try_from(RECORDS)?) {
        let now = now_us();
        writer.append(event.clone(), now)?;
        appended.push(now);
        if writer.commit_overdue(now) {
            let records = writer.commit()?;
            acknowledge(&mut took, &mut appended, &records);
            writer.upkeep(moment(1), now_us())?;
        }
    }
    let end = end(&writer);
    writer.append(control(1, end.into()), now_us())?;
    let records = writer.seal(moment(1), now_us())?;
    acknowledge(&mut took, &mut appended, &records);
    took.wall = began.elapsed();
    took.cpu = cpu_time().saturating_sub(cpu);
    Ok(took)
}

/// The floor: the same bytes, already made, in the same writes.
fn write_plainly(trail: &Path, writes: &[usize]) -> Result<Duration> {
    let mut bytes = Vec::new();
    File::open(trail)?.read_to_end(&mut bytes)?;
    let copy = trail.with_extension("copy");
    let began = Instant::now();
    let mut file = File::create(&copy)?;
    let mut rest = bytes.as_slice();
    for length in writes {
        let (part, after) = rest.split_at((*length).min(rest.len()));
        file.write_all(part)?;
        file.sync_data()?;
        rest = after;
    }
    let took = began.elapsed();
    fs::remove_file(&copy)?;
    Ok(took)
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
