//! How verifying grows with the trail: time and memory from a thousand records
//! on, each beside hashing the same bytes in the same minute.

use crate::Options;
use crate::statistics::median;
use crate::verify::{time, to_f64, write};
use anyhow::{Context as _, Result};
use std::fs;
use std::process::Command;

/// Trails of a thousand records, ten times as many, and so on up to `--records`.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!(
        "trail: verify by size, medians of {} runs; signed, a checkpoint every 1,024 records",
        options.runs
    );
    println!(
        "     records        MB    wall s     CPU s   peak MB   MB/s of CPU  openssl s   ratio"
    );
    let mut records = 1_000;
    while records <= options.records {
        row(records, options.runs, options)?;
        records *= 10;
    }
    Ok(())
}

fn row(records: u64, runs: usize, options: &Options) -> Result<()> {
    let directory = tempfile::tempdir().context("making a directory for the trail")?;
    let trail = directory.path().join("trace.jsonl");
    write(&trail, records)?;
    let bytes = fs::metadata(&trail).context("looking at the trail")?.len();
    let (mut ours, mut hashes) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut openssl = Command::new("openssl");
        hashes.push(time(openssl.args(["dgst", "-sha256"]).arg(&trail))?);
        ours.push(time(
            Command::new(&options.sandtrace).arg("verify").arg(&trail),
        )?);
    }
    let wall = median(ours.iter().map(|took| took.wall.as_secs_f64()));
    let cpu = median(ours.iter().map(|took| took.cpu.as_secs_f64()));
    let hash = median(hashes.iter().map(|took| took.wall.as_secs_f64()));
    println!(
        "  {records:10} {:9.1} {wall:9.3} {cpu:9.2} {:9.1} {:13.0} {hash:10.3} {:7.2}",
        to_f64(bytes) / 1e6,
        median(ours.iter().map(|took| to_f64(took.peak_memory) / 1e6)),
        to_f64(bytes) / 1e6 / cpu,
        wall / hash,
    );
    Ok(())
}
