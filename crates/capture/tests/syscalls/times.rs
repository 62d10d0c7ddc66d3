//! The time of calls, of which not each is measured where there are many.

use crate::program::{Running, compiled, skipped, until};
use rustix::process::Signal;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::{SyscallSource, Tally, names};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::bpf::BpfConfig;

/// As in quick.c.
const CALLS: u64 = 300_000;
const NAPS: u64 = 5;
const NAPPED_NS: u64 = NAPS * 30_000_000;

#[test]
fn short_and_long_calls_are_timed() {
    if skipped("short_and_long_calls_are_timed") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("took");
    let mut program = Running::start(&compiled("quick.c"), &[said.to_str().unwrap()]);
    let comm = format!("/proc/{}/comm", program.pid());
    until("it is ready", || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "ready\n")
    });
    let mut source = EbpfSource::attach(program.pid(), BpfConfig::default()).unwrap();
    program.signal(Signal::USR1);
    program.wait();
    let took = std::fs::read_to_string(said).unwrap();
    let took: u64 = took.trim().parse().unwrap();
    let counts = source.counts();
    assert_eq!(counts.losses, []);
    let of = |name| {
        let number = names::number(SyscallAbi::Native, name);
        let mut own = counts
            .calls
            .iter()
            .filter(|(key, ..)| Some(key.number) == number);
        own.next().map(|(_, _, tally)| *tally).unwrap()
    };
    let (short, long): (Tally, Tally) = (of("getppid"), of("nanosleep"));
    assert_eq!((short.count, long.count), (CALLS, NAPS));
    let all = short.time_ns + long.time_ns;
    assert!(long.time_ns >= NAPPED_NS, "{long:?}");
    // No call takes less than some nanoseconds, and all of them no more than
    // there was, but for the error of what one in eight stands for.
    assert!(short.time_ns > CALLS * 5, "{short:?}");
    assert!(all < took + took / 10, "{short:?} {long:?} within {took}");
}
