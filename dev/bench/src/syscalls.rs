//! What watching a process costs each of its system calls, and what it costs
//! a neighbour that nobody watches.

use crate::Options;
use crate::statistics::median;
use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use sandtrace_capture::syscall::SyscallSource;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_sys::bpf::BpfConfig;
use std::fmt;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// This program's own argument to be the load.
pub(crate) const COMMAND: &str = "make-system-calls";

/// Calls of a load that nobody slows much, and of one under a tracer.
const FAST: u32 = 1_000_000;
const SLOW: u32 = 50_000;

/// Processes of the last measurement.
const PROCESSES: usize = 1000;

/// How a load is watched.
#[derive(Clone, Copy)]
enum Watched {
    Not,
    Neighbour,
    Ebpf,
    Ptrace,
    Strace,
}

/// Prints nanoseconds a call, and what is added to the unwatched.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!(
        "syscalls: median of {} runs, nanoseconds a call",
        options.runs
    );
    println!("  processor time of the watched alone; wall time in brackets");
    println!("  watched by               getppid     added       1-byte copy     added");
    let ways = [
        ("nobody", Watched::Not, FAST),
        ("eBPF, neighbour", Watched::Neighbour, FAST),
        ("eBPF", Watched::Ebpf, FAST),
        ("ptrace", Watched::Ptrace, SLOW),
        ("strace -c -f", Watched::Strace, SLOW),
    ];
    let mut times = [const { (Vec::new(), Vec::new()) }; 5];
    for _ in 0..options.runs {
        for ((_, watched, calls), own) in ways.iter().zip(&mut times) {
            own.0.push(measure("getppid", *watched, *calls)?);
            own.1.push(measure("copy", *watched, *calls)?);
        }
    }
    let medians = times.map(|(asks, copies)| (Took::median(&asks), Took::median(&copies)));
    let [nobody, ..] = medians;
    for ((name, ..), (asks, copies)) in ways.iter().zip(medians) {
        println!(
            "  {name:16} {asks} {:9.0}   {copies} {:9.0}",
            asks.cpu - nobody.0.cpu,
            copies.cpu - nobody.1.cpu
        );
    }
    drain()
}

/// Nanoseconds a call: what the process itself used, and what passed.
#[derive(Clone, Copy)]
struct Took {
    cpu: f64,
    wall: f64,
}

impl Took {
    fn median(all: &[Self]) -> Self {
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

/// What one load took.
fn measure(what: &str, watched: Watched, calls: u32) -> Result<Took> {
    let mut load = Load::start(what, calls)?;
    let other = match watched {
        Watched::Neighbour => Some(Load::start("getppid", 1)?),
        _ => None,
    };
    let ebpf = |pid| EbpfSource::attach(pid, BpfConfig::default());
    let source: Option<Box<dyn SyscallSource>> = match watched {
        Watched::Not | Watched::Strace => None,
        Watched::Neighbour => match &other {
            Some(other) => Some(Box::new(ebpf(other.pid)?)),
            None => None,
        },
        Watched::Ebpf => Some(Box::new(ebpf(load.pid)?)),
        Watched::Ptrace => Some(Box::new(PtraceSource::attach(load.pid)?)),
    };
    let strace = match watched {
        Watched::Strace => Some(strace(load.pid)?),
        _ => None,
    };
    let time = load.go();
    drop(source);
    if let Some(mut strace) = strace {
        strace.wait().context("wait for strace")?;
    }
    time
}

/// strace, once it is attached.
fn strace(pid: u32) -> Result<Child> {
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-q", "-o", "/dev/null", "-p"]);
    let child = strace
        .arg(pid.to_string())
        .spawn()
        .context("start strace")?;
    let mine = format!("TracerPid:\t{}", child.id());
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        if status.lines().any(|line| line == mine) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(child)
}

/// What one look at a thousand processes takes.
fn drain() -> Result<()> {
    let config = BpfConfig::default();
    let mut source: Option<EbpfSource> = None;
    let mut loads = Vec::new();
    for _ in 0..PROCESSES {
        let load = Load::start("getppid", 100)?;
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
    for mut load in loads {
        load.go()?;
    }
    let Some(mut source) = source else {
        return Ok(());
    };
    let before = Instant::now();
    let counts = source.counts();
    println!(
        "  {PROCESSES} processes: {} kinds of calls read in {:.1} ms, {} losses",
        counts.calls.len(),
        before.elapsed().as_secs_f64() * 1e3,
        counts.losses.len()
    );
    for loss in &counts.losses {
        println!("  lost: {} ({})", loss.count, loss.detail);
    }
    let one = config.memory();
    println!("  tables as they are by default: about {} MiB", one >> 20);
    Ok(())
}

/// This program as a load, a shell's child: a process does not trace its own.
struct Load {
    shell: Child,
    pid: u32,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Load {
    fn start(what: &str, calls: u32) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", "exec 3<&0; \"$@\" <&3 & wait $!", "sh"])
            .arg(std::env::current_exe()?)
            .args([COMMAND, what, &calls.to_string()])
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
            shell,
            input,
            output,
        })
    }

    /// Lets it begin; what it took.
    fn go(&mut self) -> Result<Took> {
        self.input.write_all(b"\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let times = line.trim().split_once(' ').context("the load's times")?;
        Ok(Took {
            cpu: times.0.parse().context("the load's own time")?,
            wall: times.1.parse().context("the load's time")?,
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
pub(crate) fn load(what: &str, calls: &str) -> Result<()> {
    let calls: u32 = calls.parse().context("a number of calls")?;
    println!("{}", std::process::id());
    let zeros = std::fs::File::open("/dev/zero")?;
    let mut nowhere = std::fs::File::create("/dev/null")?;
    let mut byte = [0];
    std::io::stdin().lock().read_exact(&mut byte)?;
    let (began, used) = (Instant::now(), own_time());
    if what == "copy" {
        for _ in 0..calls / 2 {
            (&zeros).read_exact(&mut byte)?;
            nowhere.write_all(&byte)?;
        }
    } else {
        for _ in 0..calls {
            black_box(rustix::process::getppid());
        }
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
