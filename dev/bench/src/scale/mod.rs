//! One `sandtrace watch --all` over many stand-in VMMs: what each costs when
//! they run, and whether any is missed when they come and go.

mod churn;
mod host;
mod meter;
mod trails;
mod vmms;

use crate::Options;
use crate::child::Running;
use crate::statistics::quantile;
use anyhow::{Context as _, Result, bail};
use host::Host;
use meter::Reading;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use trails::Told;
use vmms::{Starter, Vmm};

/// How long they run while they are measured.
const WINDOW: Duration = Duration::from_secs(10);
/// Starts a second before that.
const STARTS: u32 = 50;
/// From its start to its first packet, as soon as a real guest's.
const DELAY_MS: u64 = 200;
/// A stand-in's frames go to another port every 16 of them, from here on.
const FIRST_PORT: u16 = 9000;
const PORT_FRAMES: u64 = 16;

/// Prints what many sandboxes cost, then what becomes of a storm of them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let places = options.sandboxes.iter().copied().max().unwrap_or(0);
    let places = places.max(churn::places(options));
    let host = Host::prepare(places)?;
    if !options.sandboxes.is_empty() {
        println!(
            "scale: stand-ins that send {} frames/s each, {STARTS} started per second, measured for {} s, capture {}",
            options.pace,
            WINDOW.as_secs(),
            options.capture,
        );
        println!(
            "  sandboxes  attach p50 ms  p99 ms  packet p50 ms  p99 ms  records/s  CPU %  of it capture  CPU % each  heap KiB each  ring KiB each  kernel KiB each  threads  descriptors  written KiB/s  whole"
        );
    }
    for &count in &options.sandboxes {
        steady(options, &host, count)?;
    }
    if options.rate > 0 {
        churn::run(options, &host)?;
    }
    Ok(())
}

fn steady(options: &Options, host: &Host, count: usize) -> Result<()> {
    host.send(&format!(
        "standin.delay_ms={DELAY_MS} standin.gap_ms={} standin.frames={}",
        1000_u64.checked_div(options.pace).unwrap_or(1000),
        if options.pace == 0 { 0 } else { 1_000_000 },
    ))?;
    let watch = Watch::start(options, host, &format!("steady-{count}"))?;
    let starter = Starter::new()?;
    let idle = watch.reading()?;
    let vmms = start(host, &starter, count)?;
    watch.await_attached(count)?;
    // Baselines of the disks and the first flows; looks at what is new are
    // frequent for longer.
    sleep(Duration::from_secs(if options.pace == 0 { 15 } else { 5 }));
    let before = (watch.reading()?, trails::records(&watch.trails)?);
    sleep(WINDOW);
    let after = watch.reading()?;
    let records = trails::records(&watch.trails)? - before.1;
    let ids: Vec<_> = vmms
        .iter()
        .map(|(id, vmm)| (id.clone(), vmm.started))
        .collect();
    for (_, vmm) in vmms {
        vmm.kill()?;
    }
    let told = watch.await_ends(count)?;
    watch.stop()?;
    let mut attach = Vec::new();
    let mut packet = Vec::new();
    let mut whole = 0;
    for (id, started) in &ids {
        let Some(told) = told.get(id) else { continue };
        let millis = |at: Option<std::time::SystemTime>| {
            let since = at.and_then(|at| at.duration_since(*started).ok());
            since.map(|since| since.as_secs_f64() * 1e3)
        };
        attach.extend(millis(told.attached));
        packet.extend(millis(told.packet));
        whole += usize::from(is_whole(told, options.pace));
    }
    let each = |bytes: u64| to_f64(bytes) / 1024.0 / to_f64(count);
    let cpu = after.cpu_since(&before.0) * 100.0;
    let capture = after.capture_since(&before.0) * 100.0;
    let of = |times: &[f64], share| quantile(times.iter().copied(), share);
    println!(
        "  {count:9} {:14.1} {:7.1} {:14.1} {:7.1} {:10.0} {cpu:6.1} {capture:14.1} {:11.3} {:14.0} {:14.0} {:16.0} {:8} {:12} {:14.0}  {whole} of {count}",
        of(&attach, 0.5),
        of(&attach, 0.99),
        of(&packet, 0.5),
        of(&packet, 0.99),
        to_f64(records) / WINDOW.as_secs_f64(),
        cpu / to_f64(count),
        each(after.memory.saturating_sub(idle.memory)),
        each(after.mapped.saturating_sub(idle.mapped)),
        // That of programs that all share is there from the start.
        each(after.kernel),
        after.threads,
        after.descriptors,
        to_f64(after.written - before.0.written) / 1024.0 / WINDOW.as_secs_f64(),
    );
    Ok(())
}

/// Its first flow has every packet that was sent, where so many were, nothing
/// was lost, and it has its end.
fn is_whole(told: &Told, pace: u64) -> bool {
    let first = told.packets.get(&FIRST_PORT).copied();
    let lasted = pace * WINDOW.as_secs() >= PORT_FRAMES;
    told.trails == 1
        && told.ended
        && told.reconciled
        && told.gaps == 0
        && (!lasted || first == Some(PORT_FRAMES))
}

fn start(host: &Host, starter: &Starter, count: usize) -> Result<Vec<(String, Vmm)>> {
    let begun = Instant::now();
    let mut vmms = Vec::new();
    for place in 0..count {
        let due = Duration::from_secs(1) / STARTS * u32::try_from(place)?;
        sleep(due.saturating_sub(begun.elapsed()));
        let id = format!("s{place}");
        let vmm = starter.start(host.namespace(place)?, host.vmm(place, &id)?)?;
        vmms.push((id, vmm));
    }
    Ok(vmms)
}

/// A `sandtrace watch --all` that runs.
struct Watch {
    running: Running,
    pid: u32,
    trails: PathBuf,
    said: PathBuf,
}

impl Watch {
    fn start(options: &Options, host: &Host, name: &str) -> Result<Self> {
        let trails = host.dir().join(name);
        let said = host.dir().join(format!("{name}.said"));
        let errors = std::fs::File::create_new(&said).context("creating a file")?;
        let mut command = Command::new(&options.sandtrace);
        command.args(["watch", "--all", "--provider", "firecracker"]);
        command.args(["--capture", &options.capture]);
        command.arg("--trail-dir").arg(&trails);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let mut running = Running::start(&mut command)?;
        let pid = running.child().id();
        let watch = Self {
            running,
            pid,
            trails,
            said,
        };
        let begun = Instant::now();
        while !watch.has_said("watching every sandbox")? {
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("`sandtrace watch --all` did not begin within 10 s");
            }
            sleep(Duration::from_millis(5));
        }
        // Its threads and its subscription to the kernel's events.
        sleep(Duration::from_millis(500));
        Ok(watch)
    }

    fn reading(&self) -> Result<Reading> {
        Reading::of(self.pid)
    }

    fn has_said(&self, what: &str) -> Result<bool> {
        Ok(self.count_said(what)? > 0)
    }

    fn count_said(&self, what: &str) -> Result<usize> {
        let said = std::fs::File::open(&self.said).context("reading what it said")?;
        let lines = BufReader::new(said).lines().map_while(Result::ok);
        Ok(lines.filter(|line| line.contains(what)).count())
    }

    /// Waits until so many are watched, or no more are for a while, which
    /// the count of whole trails then tells.
    fn await_attached(&self, count: usize) -> Result<()> {
        self.await_said("): watching", count)
    }

    /// The trails once so many have ended, or no more do.
    fn await_ends(&self, count: usize) -> Result<std::collections::BTreeMap<String, Told>> {
        self.await_said(": ended, ", count)?;
        trails::read(&self.trails)
    }

    fn await_said(&self, what: &str, count: usize) -> Result<()> {
        let mut last = (0, Instant::now());
        loop {
            let said = self.count_said(what)?;
            if said != last.0 {
                last = (said, Instant::now());
            }
            if said >= count || last.1.elapsed() > Duration::from_secs(10) {
                return Ok(());
            }
            sleep(Duration::from_millis(50));
        }
    }

    fn stop(self) -> Result<()> {
        let said = self.said.clone();
        let took = self.running.interrupt()?;
        let said = std::fs::read_to_string(&said).context("reading what it said")?;
        let odd = |line: &&str| line.contains("cannot be watched") || line.contains("failed");
        for line in said.lines().filter(odd).take(5) {
            println!("    {line}");
        }
        crate::capture::require_success(&took)
    }
}

fn to_f64(count: impl TryInto<u32>) -> f64 {
    count.try_into().map_or(f64::MAX, f64::from)
}
