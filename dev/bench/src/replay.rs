//! Replay of a large capture on one core, beside Suricata without rules, tshark
//! and `tcpdump -r -w` on the same file.

use crate::Options;
use crate::child::{Running, Took};
use crate::statistics::{median, spread};
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Length of the file that is made.
const BYTES: u64 = 400_000_000;
/// The core that every program is kept on.
const CORE: &str = "1";
/// Frames of one source in a row; captures are mixed, not strung together.
const RUN: usize = 8;
/// Who takes the file's digest alone.
const DIGEST: &str = "openssl";
/// Between two frames of the made capture.
const STEP_US: u64 = 20;

/// Makes the capture, runs each program in turn and prints the medians.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = tempfile::tempdir().context("making a directory for the capture")?;
    let capture = directory.path().join("mixed.pcap");
    let frames = make(&capture)?;
    let programs = programs(options, &capture, directory.path());
    println!(
        "net, replay: {frames} frames, {:.0} MB, one core, {} runs",
        f64::from(u32::try_from(fs::metadata(&capture)?.len()).unwrap_or(u32::MAX)) / 1e6,
        options.runs
    );
    let mut took: Vec<Vec<Took>> = programs.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.runs {
        for ((name, command), all) in programs.iter().zip(&mut took) {
            all.extend(measure(name, command, directory.path())?);
        }
    }
    println!("  program      Mframes/s   CPU s  peak MB");
    let count = f64::from(frames);
    for ((name, _), all) in programs.iter().zip(&took) {
        if all.is_empty() {
            println!("  {name:12} not installed");
            continue;
        }
        let cpu = median(all.iter().map(|took| took.cpu.as_secs_f64()));
        let memory = median(all.iter().map(|took| mega(took.peak_memory)));
        println!(
            "  {name:12} {:9.3} {cpu:7.2} {memory:8.1}",
            count / cpu / 1e6
        );
    }
    let (digests, others) = programs
        .iter()
        .zip(&took)
        .skip(1)
        .partition::<Vec<_>, _>(|((name, _), _)| *name == DIGEST);
    let ours = took.first().map(Vec::as_slice).unwrap_or_default();
    let digests = digests.first().map_or(&[][..], |(_, took)| took);
    for ((name, _), all) in others {
        let alone = ours
            .iter()
            .zip(all)
            .map(|(ours, theirs)| (ours, seconds(theirs)));
        compare(name, &alone.collect::<Vec<_>>());
        let hashed = ours.iter().zip(all).zip(digests);
        let hashed =
            hashed.map(|((ours, theirs), digest)| (ours, seconds(theirs) + seconds(digest)));
        compare(
            &format!("{name} and the file's digest"),
            &hashed.collect::<Vec<_>>(),
        );
    }
    Ok(())
}

fn seconds(took: &Took) -> f64 {
    took.cpu.as_secs_f64()
}

/// Prints how much faster than others we are, by our runs and the seconds of theirs.
fn compare(others: &str, runs: &[(&Took, f64)]) {
    let ratios: Vec<f64> = runs
        .iter()
        .map(|(ours, theirs)| theirs / seconds(ours))
        .collect();
    if !ratios.is_empty() {
        println!(
            "  frames per CPU second, sandtrace / {others}: {}",
            spread(&ratios)
        );
    }
}

fn mega(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

type Program = (&'static str, Vec<String>);

fn programs(options: &Options, capture: &Path, directory: &Path) -> Vec<Program> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let file = capture.display().to_string();
    let out = |name: &str| directory.join(name).display().to_string();
    let ours = options.sandtrace.display().to_string();
    vec![
        (
            "sandtrace",
            words(&[
                &ours,
                "replay",
                &file,
                "--trail",
                &out("out/trace.jsonl"),
                "-o",
                "-",
            ]),
        ),
        (
            "suricata",
            words(&[
                "suricata",
                "-r",
                &file,
                "-l",
                &out("out"),
                "-S",
                "/dev/null",
                "--runmode",
                "single",
                "-k",
                "none",
            ]),
        ),
        (
            "tshark",
            words(&["tshark", "-r", &file, "-q", "-z", "conv,ip"]),
        ),
        (
            "tcpdump",
            words(&["tcpdump", "-r", &file, "-w", "/dev/null", "-Z", "root"]),
        ),
        // What the digest costs that is in Sandtrace's trail and nobody else takes.
        (DIGEST, words(&[DIGEST, "dgst", "-sha256", &file])),
    ]
}

/// Runs a program on one core; `None` where it is not installed.
fn measure(name: &str, words: &[String], directory: &Path) -> Result<Option<Took>> {
    let Some(program) = words.first() else {
        return Ok(None);
    };
    let is_there = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_there {
        return Ok(None);
    }
    let out = directory.join("out");
    fs::remove_dir_all(&out).ok();
    fs::create_dir(&out).context("making a directory for a program's output")?;
    let mut command = Command::new("taskset");
    command.args(["-c", CORE]).args(words);
    command.env("SANDTRACE_STATE_DIR", directory.join("state"));
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let took = Running::start(quiet)?.finish()?;
    if !took.status.success() {
        bail!("{name} ended with {}", took.status);
    }
    Ok(Some(took))
}

/// One frame of a corpus.
struct Frame {
    bytes: Vec<u8>,
    wire_len: u32,
}

/// Writes a capture of [`BYTES`] from all Ethernet captures of the corpora, in
/// turns, each round with other addresses. Answers its frames.
fn make(path: &Path) -> Result<u32> {
    let sources = sources()?;
    if sources.is_empty() {
        bail!("no captures: set SANDTRACE_CORPORA to the directory of the corpora");
    }
    let mut out = BufWriter::new(File::create(path).context("creating the capture")?);
    let mut header = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    header.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header.extend(65_535_u32.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    out.write_all(&header)?;
    let (mut written, mut frames, mut now_us) = (24, 0_u32, 1_700_000_000_000_000_u64);
    for round in 0_u8.. {
        let mut places: Vec<usize> = vec![0; sources.len()];
        let mut more = true;
        while more {
            more = false;
            for (source, place) in sources.iter().zip(&mut places) {
                for frame in source.iter().skip(*place).take(RUN) {
                    more = true;
                    now_us += STEP_US;
                    written += write(&mut out, frame, round, now_us)?;
                    frames += 1;
                    if written >= BYTES {
                        out.flush()?;
                        return Ok(frames);
                    }
                }
                *place += RUN;
            }
        }
        if round == u8::MAX {
            break;
        }
    }
    bail!("the captures of the corpora are too few")
}

fn write(out: &mut impl Write, frame: &Frame, round: u8, now_us: u64) -> Result<u64> {
    let mut bytes = frame.bytes.clone();
    // The second octet of both addresses, so that each round has its own.
    if bytes.get(12..14) == Some(&[8, 0]) {
        for at in [27, 31] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= round;
            }
        }
    }
    let captured = u32::try_from(bytes.len())?;
    let (seconds, micros) = (now_us / 1_000_000, now_us % 1_000_000);
    for number in [
        u32::try_from(seconds)?,
        u32::try_from(micros)?,
        captured,
        frame.wire_len.max(captured),
    ] {
        out.write_all(&number.to_le_bytes())?;
    }
    out.write_all(&bytes)?;
    Ok(16 + u64::from(captured))
}

/// The frames of every Ethernet capture in the classic format.
fn sources() -> Result<Vec<Vec<Frame>>> {
    let root = std::env::var_os("SANDTRACE_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    let mut paths = Vec::new();
    for part in ["zeek/traces", "ja4/pcap"] {
        collect(&root.join(part), &mut paths)?;
    }
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let frames = frames(&bytes);
        if !frames.is_empty() {
            sources.push(frames);
        }
    }
    Ok(sources)
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("looking for captures in {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

/// Frames of a little-endian pcap file of microseconds and Ethernet.
fn frames(file: &[u8]) -> Vec<Frame> {
    let word = |at: usize| {
        let bytes = file.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let mut found = Vec::new();
    if word(0) != Some(0xa1b2_c3d4) || word(20) != Some(1) {
        return found;
    }
    let mut at = 24;
    while let (Some(captured), Some(wire_len)) = (word(at + 8), word(at + 12)) {
        let end = at + 16 + usize::try_from(captured).unwrap_or(usize::MAX / 2);
        let Some(bytes) = file.get(at + 16..end) else {
            break;
        };
        found.push(Frame {
            bytes: bytes.to_vec(),
            wire_len,
        });
        at = end;
    }
    found
}
