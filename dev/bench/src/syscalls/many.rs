//! What a thousand watched processes take while they live, each as a sandbox of its
//! own: memory of the kernel's tables, and the reader's time.

use super::alive::Alive;
use crate::Options;
use crate::statistics::median;
use anyhow::Result;
use sandtrace_capture::syscall::SyscallSource as _;
use sandtrace_capture::syscall::ebpf::{EbpfHub, EbpfSource};
use sandtrace_sys::bpf::{BpfConfig, BpfQuota};
use std::fs;
use std::time::Instant;

const PROCESSES: u32 = 1000;

/// What `watch --all` makes for its default of 1,024 sandboxes, and gives each.
const TABLES: BpfConfig = BpfConfig {
    owners: 2048,
    processes: 8192,
    threads: 32_768,
    ended: 32_768,
    tallies: 131_072,
    ring: 8 << 20,
    kvm_tracepoint: "kvm_exit",
};
const SHARE: BpfQuota = BpfQuota {
    events: 256,
    processes: 512,
};

/// Prints the memory of the tables, and what each kind of look takes.
pub(super) fn run(options: &Options) -> Result<()> {
    let alone = EbpfHub::load(BpfConfig::default(), BpfQuota::EVERYTHING)?;
    println!("  tables of one sandbox: {:.1} MiB", mebibytes());
    drop(alone);
    let mut all = Vec::new();
    for _ in 0..PROCESSES {
        all.push(Alive::start()?);
    }
    let hub = EbpfHub::load(TABLES, SHARE)?;
    let mut sources = Vec::new();
    let mut attached = Ok(());
    let took = timed(|| attached = attach(&hub, &all, &mut sources));
    attached?;
    let (each, tables) = (took / f64::from(PROCESSES), mebibytes());
    println!("  {PROCESSES} processes that live, each a sandbox: attached in {each:.2} ms each");
    println!(
        "  their tables: {tables:.1} MiB, {:.1} KiB for each",
        tables * 1024.0 / f64::from(PROCESSES)
    );
    let mut busy = Vec::new();
    let mut idle = Vec::new();
    let mut polls = Vec::new();
    let mut kinds = 0;
    // One more: in the first round each kind is new.
    for _ in 0..=options.runs {
        for one in &mut all {
            one.works()?;
        }
        polls.push(timed(|| poll(&mut sources)));
        busy.push(timed(|| kinds = drain(&mut sources)));
        idle.push(timed(|| _ = drain(&mut sources)));
    }
    let [first, ..] = busy[..] else { return Ok(()) };
    println!("  one look for rare calls of all: {:.2} ms", median(polls));
    println!("  one drain of all, {kinds} kinds of calls, the first time: {first:.2} ms");
    println!(
        "  the same again: {:.2} ms",
        median(busy.into_iter().skip(1))
    );
    println!("  where no calls were made: {:.2} ms", median(idle));
    drop(all);
    let ended = timed(|| _ = drain(&mut sources));
    println!("  when all have ended: {ended:.2} ms");
    Ok(())
}

fn attach(hub: &EbpfHub, all: &[Alive], sources: &mut Vec<EbpfSource>) -> Result<()> {
    for one in all {
        sources.push(hub.watch(one.pid())?);
    }
    Ok(())
}

fn poll(sources: &mut [EbpfSource]) {
    for source in sources {
        drop(source.facts());
    }
}

/// Takes the counts of all: how many kinds of calls there were. Nothing may be lost.
fn drain(sources: &mut [EbpfSource]) -> usize {
    let mut kinds = 0;
    for source in sources {
        let counts = source.counts();
        kinds += counts.calls.len();
        for loss in counts.losses {
            println!("  lost: {} ({})", loss.count, loss.detail);
        }
    }
    kinds
}

/// Milliseconds.
fn timed(work: impl FnOnce()) -> f64 {
    let before = Instant::now();
    work();
    before.elapsed().as_secs_f64() * 1e3
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
