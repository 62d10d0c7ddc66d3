//! What a thousand watched processes take.

use super::load::{Load, Work};
use anyhow::Result;
use sandtrace_capture::syscall::SyscallSource as _;
use sandtrace_capture::syscall::ebpf::{EbpfHub, EbpfSource};
use sandtrace_sys::bpf::{BpfConfig, BpfQuota};
use std::fs;
use std::time::Instant;

const PROCESSES: usize = 1000;

/// Prints what one look at all of them takes, and the memory of the tables.
pub(super) fn run() -> Result<()> {
    let config = BpfConfig::default();
    let mut source: Option<EbpfSource> = None;
    let mut loads = Vec::new();
    for _ in 0..PROCESSES {
        let load = Load::start(Work::Ask, 100)?;
        match &mut source {
            Some(source) => {
                source.watch(load.pid)?;
                // As a watch does ten times a second.
                let _few = source.facts();
            }
            None => source = Some(EbpfSource::attach(load.pid, config)?),
        }
        loads.push(load);
    }
    let Some(mut source) = source else {
        return Ok(());
    };
    for mut load in loads {
        load.go()?;
        let _few = source.facts();
    }
    let before = Instant::now();
    let counts = source.counts();
    println!(
        "  {PROCESSES} processes: {} kinds of calls read in {:.1} ms",
        counts.calls.len(),
        before.elapsed().as_secs_f64() * 1e3,
    );
    let before = Instant::now();
    let none = source.counts();
    println!(
        "  again, when they have ended: {} kinds in {:.1} ms",
        none.calls.len(),
        before.elapsed().as_secs_f64() * 1e3,
    );
    for loss in &counts.losses {
        println!("  lost: {} ({})", loss.count, loss.detail);
    }
    println!("  tables of one sandbox: {:.1} MiB", mebibytes());
    drop(source);
    // What `watch --all` makes for its default of 1,024 sandboxes.
    let all = BpfConfig {
        owners: 2048,
        processes: 8192,
        threads: 32_768,
        ended: 32_768,
        tallies: 131_072,
        ring: 8 << 20,
        ..config
    };
    let hub = EbpfHub::load(all, BpfQuota::EVERYTHING)?;
    println!("  tables of 1,024 sandboxes: {:.1} MiB", mebibytes());
    drop(hub);
    Ok(())
}

/// Memory of all tables that this process holds, as the kernel says.
fn mebibytes() -> f64 {
    let infos = fs::read_dir("/proc/self/fdinfo").into_iter().flatten();
    let texts = infos
        .flatten()
        .filter_map(|info| fs::read_to_string(info.path()).ok());
    let locked = texts.filter(|text| text.contains("map_id:")).map(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        line.and_then(|bytes| bytes.trim().parse::<u32>().ok())
            .map_or(0.0, f64::from)
    });
    locked.sum::<f64>() / f64::from(1 << 20)
}
