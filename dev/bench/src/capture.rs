//! Capture at the tap's limit: what is lost, whether every flow is exact, and
//! what it costs beside tcpdump on the same load, and beside a tcpdump that wants none
//! of it: less than that no packet socket can cost the writer.

use crate::Options;
use crate::child::{Running, Took};
use crate::ground::{Ground, TAP};
use crate::load;
use crate::statistics::{median, spread};
use anyhow::{Context as _, Result, bail};
use sandtrace_event::{AuditEvent, FlowPhase, Payload};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The flows' ports go up from here.
const FIRST_PORT: u16 = 10_000;
/// Most flows, each with a port of its own.
pub(crate) const MOST_FLOWS: u16 = u16::MAX - FIRST_PORT;
/// The same room for packets as sandtrace's ring, in KiB.
const TCPDUMP_BUFFER: &str = "32768";
/// A filter that is true of no frame there is.
const NONE: &str = "greater 100000";
/// Time for a reader to take what is left in its ring.
const DRAIN: Duration = Duration::from_millis(800);

/// One run of one side.
struct Side {
    /// Frames per second that the writer reached.
    rate: f64,
    /// CPU seconds of the reader.
    cpu: f64,
    lost: u64,
    /// Flows with exactly the packets and bytes that were sent.
    exact: usize,
}

/// What the writer sends.
struct Load {
    /// One frame of each flow, sent in turn.
    turn: Vec<Vec<u8>>,
    frames: u64,
    /// Frames of each flow.
    each: u64,
    /// Bytes of each frame.
    bytes: u64,
    /// Whether the host routes them on.
    routed: bool,
}

impl Load {
    /// The host's side of it.
    fn ground(&self) -> Result<Ground> {
        let ground = Ground::prepare()?;
        if self.routed {
            ground.route()?;
        }
        Ok(ground)
    }

    fn send(&self, ground: &Ground) -> Result<Duration> {
        let took = load::flood(ground.tap(), &self.turn, self.frames)?;
        if self.routed {
            let routed = ground.routed()?;
            // What the host dropped it did not pay for.
            if routed < self.frames {
                bail!("the host routed {routed} of {} frames", self.frames);
            }
        }
        Ok(took)
    }
}

/// Runs nothing, tcpdump twice and sandtrace by both backends in turn, and prints the medians.
pub(crate) fn run(options: &Options) -> Result<()> {
    let count = options.flows;
    let frames = options.frames - options.frames % u64::from(count);
    let load = Load {
        turn: (0..count)
            .map(|flow| load::frame(FIRST_PORT.saturating_add(flow), options.frame_bytes))
            .collect(),
        frames,
        each: frames / u64::from(count),
        bytes: u64::try_from(options.frame_bytes)?,
        routed: options.routed,
    };
    println!(
        "capture: {frames} frames of {} B in {count} flows{}, {} runs",
        options.frame_bytes,
        if options.routed { ", routed" } else { "" },
        options.runs
    );
    let mut sides: [Vec<Side>; 5] = Default::default();
    let [bare, refusals, tcpdumps, rings, programs] = &mut sides;
    for _ in 0..options.runs {
        bare.push(alone(&load)?);
        refusals.push(tcpdump(&load, Some(NONE))?);
        tcpdumps.push(tcpdump(&load, None)?);
        rings.push(sandtrace(&options.sandtrace, "af-packet", &load)?);
        programs.push(sandtrace(&options.sandtrace, "ebpf", &load)?);
    }
    let [bare, refusals, tcpdumps, rings, programs] = &sides;
    let row = |name: &str, sides: &[Side]| {
        let frames = u32::try_from(frames).map_or(f64::MAX, f64::from);
        let cpu = median(sides.iter().map(|side| side.cpu));
        let pairs = bare.iter().zip(sides);
        let slower: Vec<f64> = pairs.map(|(bare, side)| bare.rate / side.rate).collect();
        println!(
            "  {name:10} {:9.3} {:10} {cpu:9.2} {:9.0}  {}",
            median(sides.iter().map(|side| side.rate)) / 1e6,
            sides.iter().map(|side| side.lost).max().unwrap_or(0),
            cpu * 1e9 / frames,
            spread(&slower),
        );
    };
    println!("  reader     Mframes/s  most lost     CPU s  ns/frame  writer's time / none");
    row("none", bare);
    row("refusing", refusals);
    row("tcpdump", tcpdumps);
    row("af-packet", rings);
    row("ebpf", programs);
    let pairs = rings.iter().zip(tcpdumps);
    let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours.cpu / theirs.cpu).collect();
    println!("  CPU, af-packet / tcpdump: {}", spread(&ratios));
    for (name, side) in [("af-packet", rings), ("ebpf", programs)] {
        let exact = side.iter().map(|side| side.exact).min();
        println!(
            "  flows exact, {name}: {} of {count} in every run",
            exact.unwrap_or(0)
        );
    }
    Ok(())
}

fn rate(frames: u64, took: Duration) -> f64 {
    u32::try_from(frames).map_or(f64::MAX, f64::from) / took.as_secs_f64()
}

fn alone(load: &Load) -> Result<Side> {
    let ground = load.ground()?;
    let took = load.send(&ground)?;
    Ok(Side {
        rate: rate(load.frames, took),
        cpu: 0.0,
        lost: 0,
        exact: 0,
    })
}

/// Frames that `filter` is true of, or all.
fn tcpdump(load: &Load, filter: Option<&str>) -> Result<Side> {
    let ground = load.ground()?;
    let mut command = ground.command("tcpdump");
    command.args([
        "-i",
        TAP,
        "-n",
        "-B",
        TCPDUMP_BUFFER,
        "-Z",
        "root",
        "-w",
        "/dev/null",
    ]);
    command.args(filter);
    let mut running = Running::start(command.stderr(Stdio::piped()))?;
    let said = running.child().stderr.take().context("tcpdump's stderr")?;
    let mut said = BufReader::new(said);
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        if said.read_line(&mut line).context("reading from tcpdump")? == 0 {
            bail!("tcpdump ended before it listened");
        }
    }
    let wrote = load.send(&ground)?;
    sleep(DRAIN);
    let took = running.interrupt()?;
    let mut rest = String::new();
    said.read_to_string(&mut rest)
        .context("reading from tcpdump")?;
    let captured = rest
        .lines()
        .find_map(|line| line.split_once(" packets captured")?.0.parse::<u64>().ok())
        .with_context(|| format!("tcpdump did not say what it captured: {rest}"))?;
    Ok(Side {
        rate: rate(load.frames, wrote),
        cpu: took.cpu.as_secs_f64(),
        // What it does not want is not lost.
        lost: filter.map_or(load.frames.saturating_sub(captured), |_| 0),
        exact: 0,
    })
}

fn sandtrace(program: &Path, backend: &str, load: &Load) -> Result<Side> {
    let ground = load.ground()?;
    let directory = tempfile::tempdir().context("making a directory for the trail")?;
    let trail = directory.path().join("trace.jsonl");
    let watcher = watch(program, Some(backend), &ground, &trail)?;
    let wrote = load.send(&ground)?;
    sleep(DRAIN);
    let took = watcher.interrupt()?;
    require_success(&took)?;
    let flows = flows(&trail)?;
    let each = (load.each, load.each * load.bytes);
    let seen: u64 = flows.values().map(|(packets, _)| packets).sum();
    Ok(Side {
        rate: rate(load.frames, wrote),
        cpu: took.cpu.as_secs_f64(),
        lost: load.frames.saturating_sub(seen),
        exact: flows.values().filter(|flow| **flow == each).count(),
    })
}

/// Starts `sandtrace watch` on the tap and waits until it watches.
pub(crate) fn watch(
    program: &Path,
    backend: Option<&str>,
    ground: &Ground,
    trail: &Path,
) -> Result<Running> {
    let mut command = Command::new(program);
    command.args([
        "watch",
        "--sandbox-id",
        "bench",
        "--tap",
        TAP,
        "--netns",
        ground.netns(),
    ]);
    command.arg("--trail").arg(trail);
    if let Some(backend) = backend {
        command.args(["--capture", backend]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = Running::start(&mut command)?;
    let begun = Instant::now();
    while !fs::read_to_string(trail).is_ok_and(|text| text.contains("\"sandbox_attached\"")) {
        if let Some(status) = running.child().try_wait().context("looking at sandtrace")? {
            bail!("`sandtrace watch` ended before it watched: {status}");
        }
        if begun.elapsed() > Duration::from_secs(10) {
            bail!("`sandtrace watch` did not attach within 10 s");
        }
        sleep(Duration::from_millis(5));
    }
    Ok(running)
}

/// A measured run that failed measures nothing.
pub(crate) fn require_success(took: &Took) -> Result<()> {
    if !took.status.success() {
        bail!("`sandtrace` ended with {}", took.status);
    }
    Ok(())
}

/// Packets and frame bytes that the load's flows sent, by port, from the
/// records with which they were closed.
fn flows(trail: &Path) -> Result<BTreeMap<u16, (u64, u64)>> {
    let file = fs::File::open(trail).context("opening the trail")?;
    let mut flows = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        let line = line.context("reading the trail")?;
        let event: AuditEvent = serde_json::from_str(&line).context("reading a record")?;
        let Payload::NetworkEgress(flow) = event.payload else {
            continue;
        };
        let Some(port) = flow.src_port.filter(|_| flow.phase == FlowPhase::Close) else {
            continue;
        };
        let sum: &mut (u64, u64) = flows.entry(port).or_default();
        sum.0 += flow.packets_sent.0;
        sum.1 += flow.wire_bytes_sent.0;
    }
    Ok(flows)
}
