//! Programs that make system calls, and what they take for each.

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// This program's own argument to be a load.
pub(crate) const COMMAND: &str = "make-system-calls";

/// Nanoseconds a call: what the process itself used, and what passed.
#[derive(Clone, Copy)]
pub(super) struct Took {
    pub(super) cpu: f64,
    pub(super) wall: f64,
}

impl Took {
    pub(super) fn median(all: &[Self]) -> Self {
        use crate::statistics::median;
        Self {
            cpu: median(all.iter().map(|took| took.cpu)),
            wall: median(all.iter().map(|took| took.wall)),
        }
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.0} ({:7.0})", self.cpu, self.wall)
    }
}

/// What a load does.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// getppid, again and again.
    Ask,
    /// `dd` of blocks of one byte: a read and a write each.
    Dd,
}

/// A program that waits to begin, a shell's child: a process does not trace its own.
pub(super) struct Load {
    shell: Child,
    pub(super) pid: u32,
    calls: u32,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Begins at a line; a shell tells afterwards what its child used.
const DD: &str = "echo $$; read go; exec dd bs=1 count=$0 if=/dev/zero of=/dev/null";

impl Load {
    pub(super) fn start(work: Work, calls: u32) -> Result<Self> {
        let mut shell = Command::new("bash");
        shell.env("LC_ALL", "C").env("TIMEFORMAT", "%R %U %S");
        // What `time` says goes to the output, what dd says nowhere.
        let timed = "exec 3<&0 4>&1; { time { \"$@\" <&3 >&4 2>/dev/null & wait $!; }; } 2>&1";
        shell.args(["-c", timed, "bash"]);
        match work {
            Work::Ask => {
                shell.arg(std::env::current_exe()?);
                shell.args([COMMAND, &calls.to_string()]);
            }
            Work::Dd => {
                shell.args(["sh", "-c", DD, &(calls / 2).to_string()]);
            }
        }
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a load")?;
        let input = shell.stdin.take().context("its input")?;
        let output = shell.stdout.take().context("its output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        Ok(Self {
            pid: line.trim().parse().context("the load's id")?,
            calls,
            shell,
            input,
            output,
        })
    }

    /// Lets it begin; what it took.
    pub(super) fn go(&mut self) -> Result<Took> {
        let began = Instant::now();
        self.input.write_all(b"\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let words: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        let words = words.with_context(|| format!("the load's times: {line}"))?;
        let each = |seconds: f64| seconds * 1e9 / f64::from(self.calls);
        Ok(match words[..] {
            [cpu, wall] => Took { cpu, wall },
            // The shell waited for the line too.
            [_, user, system] => Took {
                cpu: each(user + system),
                wall: each(began.elapsed().as_secs_f64()),
            },
            _ => anyhow::bail!("the load's times: {line}"),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // One that was not let go ends with its input.
        let _ended_already = self.input.write_all(b"\n");
        let _reaped = self.shell.wait();
    }
}

/// The load: says its id, waits for a line, and says nanoseconds a call.
pub(crate) fn load(calls: &str) -> Result<()> {
    let calls: u32 = calls.parse().context("a number of calls")?;
    println!("{}", std::process::id());
    let mut byte = [0];
    std::io::stdin().lock().read_exact(&mut byte)?;
    let (began, used) = (Instant::now(), own_time());
    for _ in 0..calls {
        black_box(rustix::process::getppid());
    }
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(calls);
    let (cpu, wall) = (own_time().saturating_sub(used), began.elapsed());
    println!("{} {}", each(cpu), each(wall));
    Ok(())
}

/// Processor time of this process so far.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
