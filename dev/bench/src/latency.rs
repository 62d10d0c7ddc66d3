//! From a sandbox's first packet to its record in the trail by either capture,
//! beside the time until tcpdump prints the same packet. Of many sandboxes under
//! one watch `scale` measures it.

use crate::Options;
use crate::capture::{require_success, watch};
use crate::child::Running;
use crate::ground::{Ground, TAP};
use crate::load;
use crate::statistics::quantile;
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

const FIRST_PORT: u16 = 20_000;
/// A record that takes longer never came.
const PATIENCE: Duration = Duration::from_secs(5);

/// Times every first packet on both sides and prints the quantiles.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("latency: {} first packets on each side", options.packets);
    println!("  reader         p50 ms    p99 ms   most ms");
    row("tcpdump", &tcpdump(options.packets)?);
    for backend in ["af-packet", "ebpf"] {
        let times = sandtrace(&options.sandtrace, backend, options.packets)?;
        row(backend, &times);
    }
    Ok(())
}

fn row(name: &str, times: &[Duration]) {
    let millis = |share| quantile(times.iter().map(|time| time.as_secs_f64() * 1e3), share);
    println!(
        "  {name:10} {:10.2} {:9.2} {:9.2}",
        millis(0.5),
        millis(0.99),
        millis(1.0)
    );
}

/// Sends the first packet of one flow after the other; `seen` waits for the
/// sign that it was noticed.
fn probe(
    ground: &Ground,
    packets: u16,
    mut seen: impl FnMut(u16) -> Result<()>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for port in (FIRST_PORT..).take(packets.into()) {
        // Uneven pauses, so that no reader's own rhythm is met.
        sleep(Duration::from_micros(
            5_000 + u64::from(port) * 7919 % 40_000,
        ));
        let sent = Instant::now();
        load::send(ground.tap(), &load::frame(port, load::FRAME_BYTES))?;
        seen(port)?;
        times.push(sent.elapsed());
    }
    Ok(times)
}

fn tcpdump(packets: u16) -> Result<Vec<Duration>> {
    let ground = Ground::prepare()?;
    let mut command = ground.command("tcpdump");
    command.args(["-i", TAP, "-n", "-l", "--immediate-mode", "-Z", "root"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut command)?;
    let said = running.child().stderr.take().context("tcpdump's stderr")?;
    let prints = running.child().stdout.take().context("tcpdump's stdout")?;
    let said = lines(said);
    while !next(&said)?.contains("listening on") {}
    let prints = lines(prints);
    let times = probe(&ground, packets, |port| {
        let sign = format!(".{port} > ");
        while !next(&prints)?.contains(&sign) {}
        Ok(())
    })?;
    running.interrupt()?;
    Ok(times)
}

fn sandtrace(program: &Path, backend: &str, packets: u16) -> Result<Vec<Duration>> {
    let ground = Ground::prepare()?;
    let directory = tempfile::tempdir().context("making a directory for the trail")?;
    let trail = directory.path().join("trace.jsonl");
    let watcher = watch(program, Some(backend), &ground, &trail)?;
    let mut growing = File::open(&trail).context("opening the trail")?;
    let mut text = String::new();
    let times = probe(&ground, packets, |port| {
        let sign = format!("\"src_port\":{port},");
        let begun = Instant::now();
        text.clear();
        while !text.contains(&sign) {
            if begun.elapsed() > PATIENCE {
                bail!("no record of the flow from port {port} within {PATIENCE:?}");
            }
            if growing
                .read_to_string(&mut text)
                .context("reading the trail")?
                == 0
            {
                sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    })?;
    require_success(&watcher.interrupt()?)?;
    Ok(times)
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn next(lines: &Receiver<String>) -> Result<String> {
    lines.recv_timeout(PATIENCE).context("waiting for tcpdump")
}
