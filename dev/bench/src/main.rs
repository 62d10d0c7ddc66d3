//! Measures a built `sandtrace` beside references on the same machine in the
//! same run: ratios of such pairs mean something, single figures hardly do.

#![expect(
    clippy::print_stdout,
    reason = "its output is for the person who runs it"
)]

mod append;
mod capture;
mod child;
mod fs;
mod ground;
mod latency;
mod load;
mod naive;
mod replay;
mod scale;
mod statistics;
mod syscalls;
mod trail;
mod verify;

use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
sandtrace-bench --sandtrace PROGRAM [capture | verify | trail | latency | syscalls | net | fs | fs-inodes | fs-idle | all | scale] [OPTIONS]

  --runs N      pairs of runs, of which medians are shown (5)
  --frames N    frames per run of capture (5000000)
  --flows N     flows of capture (1000)
  --size N      bytes of each frame of capture, 64 to 65000 (64)
  --routed      the host of capture routes the frames on, rather than drop them
  --records N   records of verify's trail (1000000)
  --packets N   first packets per side of latency (200)

scale is not part of all: it starts a thousand stand-ins of VMMs.
  --sandboxes N,N   how many run at once (10,100,1000; none to leave it out)
  --rate N      starts and stops a second (200; 0 to leave it out)
  --seconds N   for how long (60)
  --pace N      frames a second of each that runs (5; 0 for none)
  --capture MODE  how frames are captured (auto)
";

/// What to measure, and how much of it.
pub(crate) struct Options {
    /// The program that is measured.
    pub(crate) sandtrace: PathBuf,
    /// Pairs of runs.
    pub(crate) runs: usize,
    /// Frames per capture run.
    pub(crate) frames: u64,
    /// Flows of a capture run.
    pub(crate) flows: u16,
    /// Bytes of each frame of a capture run.
    pub(crate) frame_bytes: usize,
    /// Whether the host routes them on.
    pub(crate) routed: bool,
    /// Records of the trail to verify.
    pub(crate) records: u64,
    /// First packets to time.
    pub(crate) packets: u16,
    /// Sandboxes at once, one run of scale for each.
    pub(crate) sandboxes: Vec<usize>,
    /// Starts and stops a second of scale.
    pub(crate) rate: u32,
    /// For how long.
    pub(crate) seconds: u32,
    /// Frames a second of each sandbox that runs.
    pub(crate) pace: u64,
    /// How they are captured.
    pub(crate) capture: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    if let [command, file] = arguments
        && command == naive::COMMAND
    {
        return naive::run(file.as_ref());
    }
    if let [command, calls] = arguments
        && command == syscalls::COMMAND
    {
        return syscalls::load(calls);
    }
    if let [command] = arguments
        && command == syscalls::ALIVE
    {
        return syscalls::live();
    }
    if let [command, backend, pid] = arguments
        && command == syscalls::WATCH
    {
        return syscalls::watch(backend, pid);
    }
    if let [command, image] = arguments
        && command == fs::COMMAND
    {
        return fs::watch(image.as_ref());
    }
    let mut what = "all";
    let mut options = Options {
        sandtrace: PathBuf::from("sandtrace"),
        runs: 5,
        frames: 5_000_000,
        flows: 1000,
        frame_bytes: load::FRAME_BYTES,
        routed: false,
        records: 1_000_000,
        packets: 200,
        sandboxes: vec![10, 100, 1000],
        rate: 200,
        seconds: 60,
        pace: 5,
        capture: "auto".to_owned(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.with_context(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--sandtrace" => options.sandtrace = PathBuf::from(value()?),
            "--runs" => options.runs = number(argument, value()?)?,
            "--frames" => options.frames = number(argument, value()?)?,
            "--flows" => options.flows = number(argument, value()?)?,
            "--size" => options.frame_bytes = number(argument, value()?)?,
            "--routed" => options.routed = true,
            "--records" => options.records = number(argument, value()?)?,
            "--packets" => options.packets = number(argument, value()?)?,
            "--rate" => options.rate = number(argument, value()?)?,
            "--seconds" => options.seconds = number(argument, value()?)?,
            "--pace" => options.pace = number(argument, value()?)?,
            "--capture" => value()?.clone_into(&mut options.capture),
            "--sandboxes" => options.sandboxes = numbers(argument, value()?)?,
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            name @ ("capture" | "verify" | "trail" | "latency" | "syscalls" | "net" | "fs"
            | "fs-inodes" | "fs-idle" | "all" | "scale") => {
                what = name;
            }
            other => bail!("unknown argument {other}; see --help"),
        }
    }
    if options.runs == 0 {
        bail!("--runs must be at least 1");
    }
    if !(load::FRAME_BYTES..=load::MOST_BYTES).contains(&options.frame_bytes) {
        bail!("--size must be 64 to 65000");
    }
    if !(1..=capture::MOST_FLOWS).contains(&options.flows) {
        bail!("--flows must be 1 to {}", capture::MOST_FLOWS);
    }
    if options.frames < options.flows.into() {
        bail!("--frames must be at least one for each flow");
    }
    if what == "scale" {
        return scale::run(&options);
    }
    let asked = |name: &str| what == name || what == "all";
    if asked("capture") {
        capture::run(&options)?;
    }
    if asked("verify") {
        verify::run(&options)?;
    }
    if asked("net") {
        replay::run(&options)?;
    }
    if asked("fs") {
        fs::run(&options)?;
    }
    if what == "fs-inodes" {
        fs::memory(&options)?;
    }
    if what == "fs-idle" {
        fs::idle::run(&options)?;
    }
    if asked("trail") {
        append::run(&options)?;
        trail::run(&options)?;
    }
    if asked("latency") {
        latency::run(&options)?;
    }
    if asked("syscalls") {
        syscalls::run(&options)?;
    }
    Ok(())
}

/// Separated by commas; `none` for none.
fn numbers(flag: &str, value: &str) -> Result<Vec<usize>> {
    let words = value.split(',').filter(|word| *word != "none");
    words.map(|word| number(flag, word)).collect()
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T> {
    let number = value.parse().ok();
    number.with_context(|| format!("{flag} {value}: not a number that fits"))
}
