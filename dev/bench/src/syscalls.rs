//! What watching a process costs each of its system calls, and what it costs
//! a neighbour that nobody watches.

mod alive;
mod boot;
mod load;
mod many;
mod watching;

use crate::Options;
use anyhow::Result;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_sys::bpf::{BpfConfig, BpfNothing};
use std::any::Any;

pub(crate) use alive::{ALIVE, live};
pub(crate) use load::{COMMAND, load};
use load::{Load, Took, Work};
use watching::Watcher;
pub(crate) use watching::{WATCH, watch};

/// Calls of a load that nobody slows much, and of one under a tracer.
const FAST: u32 = 1_000_000;
const SLOW: u32 = 20_000;

/// How a load is watched.
#[derive(Clone, Copy)]
enum Watched {
    Not,
    Nothing,
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
    println!("  watched by               getppid     added       dd of 1 byte     added");
    let ways = [
        ("nobody", Watched::Not, FAST),
        ("empty programs", Watched::Nothing, FAST),
        ("eBPF, neighbour", Watched::Neighbour, FAST),
        ("eBPF", Watched::Ebpf, FAST),
        ("ptrace", Watched::Ptrace, SLOW),
        ("strace -c -f", Watched::Strace, SLOW),
    ];
    let mut times = [const { (Vec::new(), Vec::new()) }; 6];
    for _ in 0..options.runs {
        for ((_, watched, calls), own) in ways.iter().zip(&mut times) {
            own.0.push(measure(Work::Ask, *watched, *calls)?);
            own.1.push(measure(Work::Dd, *watched, *calls)?);
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
    boot::run(options)?;
    many::run(options)
}

/// What one load took.
fn measure(work: Work, watched: Watched, calls: u32) -> Result<Took> {
    let mut load = Load::start(work, calls)?;
    let ebpf = |pid| EbpfSource::attach(pid, BpfConfig::default());
    // Held while the load runs, in this order.
    let watching: Vec<Box<dyn Any>> = match watched {
        Watched::Not => Vec::new(),
        Watched::Nothing => vec![Box::new(BpfNothing::attach()?)],
        Watched::Neighbour => {
            let other = Load::start(Work::Ask, 1)?;
            vec![Box::new(ebpf(other.pid)?), Box::new(other)]
        }
        Watched::Ebpf => vec![Box::new(ebpf(load.pid)?)],
        Watched::Ptrace => vec![Box::new(PtraceSource::attach(load.pid)?)],
        Watched::Strace => vec![Box::new(Watcher::strace(load.pid)?)],
    };
    let took = load.go();
    drop(load);
    drop(watching);
    took
}
