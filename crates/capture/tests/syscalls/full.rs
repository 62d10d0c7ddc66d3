//! Tables and rings that are too small for what real programs do: what they have no
//! room for is said, to the last call, and alarms are not among it.

use crate::calls::BACKENDS;
use crate::program::{Running, compiled, skipped, until};
use crate::records::now;
use rustix::process::Signal;
use sandtrace_capture::Observer;
use sandtrace_capture::syscall::ebpf::{EbpfHub, EbpfSource};
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig, SyscallSource};
use sandtrace_event::{
    CaptureGap, GapCause, GapUnit, Limits, Observation, Payload, RareCall, SyscallActivity,
};
use sandtrace_sys::bpf::{BpfConfig, BpfQuota};
use sandtrace_sys::tasks;
use std::path::Path;

/// Whatever is reported, kept.
#[derive(Default)]
pub(crate) struct All {
    activities: Vec<SyscallActivity>,
    pub(crate) gaps: Vec<CaptureGap>,
}

impl Observer for All {
    fn observe(&mut self, observation: Observation) -> Limits {
        match observation.payload {
            Payload::SyscallActivity(activity) => self.activities.push(activity),
            Payload::CaptureGap(gap) => self.gaps.push(gap),
            other => panic!("{other:?}"),
        }
        Limits::default()
    }
}

impl All {
    /// Calls that were counted.
    fn counted(&self) -> u64 {
        let summaries = self.activities.iter().filter_map(|it| it.summary.as_ref());
        let calls = summaries.flat_map(|it| &it.calls);
        calls.map(|call| call.count.0).sum()
    }

    /// Sum of the gaps of one cause.
    fn lost(&self, cause: GapCause, unit: GapUnit) -> u64 {
        let own = self.gaps.iter().filter(|gap| gap.cause == cause);
        let own = own.inspect(|gap| assert_eq!(gap.source, NAME));
        let own = own.filter(|gap| gap.unit == unit);
        own.map(|gap| gap.count.0).sum()
    }

    pub(crate) fn rare(&self, name: &str) -> Vec<&RareCall> {
        let calls = self.activities.iter().filter_map(|it| it.call.as_ref());
        calls.filter(|call| call.name == name).collect()
    }
}

const NAME: &str = "a test";

pub(crate) fn collector(pid: u32, source: Box<dyn SyscallSource>) -> SyscallCollector {
    let config = SyscallConfig {
        pid,
        vmm: None,
        disks: Vec::new(),
        name: NAME.to_owned(),
    };
    SyscallCollector::new(config, source, now())
}

fn ready(program: &Running) {
    let comm = format!("/proc/{}/comm", program.pid());
    until("it is ready", || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "ready\n")
    });
}

/// All that 500 threads did, with tables of this size.
fn threads(tables: BpfConfig) -> All {
    all_of(Running::start(&compiled("many.c"), &[]), tables)
}

/// All that a program did from its signal to its end, with tables of this size.
fn all_of(mut program: Running, tables: BpfConfig) -> All {
    ready(&program);
    let source = EbpfSource::attach(program.pid(), tables).unwrap();
    let mut collector = collector(program.pid(), Box::new(source));
    let mut all = All::default();
    program.signal(Signal::USR1);
    until("it ends", || {
        collector.poll(now(), &mut all);
        collector.has_ended()
    });
    program.wait();
    collector.finish(now(), &mut all);
    all
}

#[test]
fn what_a_full_table_does_not_count_is_a_gap_to_the_last_call() {
    if skipped("what_a_full_table_does_not_count_is_a_gap_to_the_last_call") {
        return;
    }
    let whole = threads(BpfConfig::default());
    assert_eq!(whole.gaps, []);
    let made = whole.counted();
    assert!(made > 500 * 21, "{made}");
    let lost = |all: &All, unit| all.lost(GapCause::TableFull, unit);
    let check = |all: &All, threads: u64| {
        let calls = lost(all, GapUnit::Calls);
        assert!(calls > 0, "{:?}", all.gaps);
        assert_eq!(all.counted() + calls, made, "{:?}", all.gaps);
        assert_eq!(lost(all, GapUnit::Threads), threads, "{:?}", all.gaps);
    };
    let few_tallies = threads(BpfConfig {
        tallies: 1,
        ..BpfConfig::default()
    });
    check(&few_tallies, 0);
    // The first one and 15 of those that it starts have room, until they end.
    let few_threads = threads(BpfConfig {
        threads: 16,
        ..BpfConfig::default()
    });
    check(&few_threads, 485);
    // Of all 501, which end before anybody looks, 16 are known when it is too late
    // to ask the others whose counts they are.
    let few_ended = threads(BpfConfig {
        ended: 16,
        ..BpfConfig::default()
    });
    check(&few_ended, 485);
}

/// Threads that end at the same time leave their places to others: ten have room
/// here, and 3,000 times nine come one after the other.
#[test]
fn threads_that_end_side_by_side_leave_their_room() {
    if skipped("threads_that_end_side_by_side_leave_their_room") {
        return;
    }
    let tables = BpfConfig {
        threads: 10,
        ..BpfConfig::default()
    };
    let all = all_of(Running::start(&compiled("group.c"), &["3000"]), tables);
    let lost = all.gaps.iter().find(|gap| gap.cause == GapCause::TableFull);
    assert_eq!(lost, None);
}

/// A flood that nobody takes before it is over: what there was no room for, what
/// was beyond the bound of records and what was recorded is all that was asked for.
#[track_caller]
fn check_flood(backend: &str, files: u64, attach: impl FnOnce(u32) -> Box<dyn SyscallSource>) {
    let mut program = Running::start(&compiled("flood.c"), &[&files.to_string()]);
    ready(&program);
    let collector = collector(program.pid(), attach(program.pid()));
    let mut all = All::default();
    program.signal(Signal::USR1);
    program.wait();
    collector.finish(now(), &mut all);
    let opened = all.rare("openat");
    let dropped = all.lost(GapCause::RingDrop, GapUnit::Calls);
    let beyond = all.lost(GapCause::CallBound, GapUnit::Calls);
    let told = u64::try_from(opened.len()).unwrap();
    assert!(told > 0 && dropped > 0, "{backend}: {:?}", all.gaps);
    // Its end, which is no record of its own, came when there was no room.
    assert_eq!(
        told + dropped + beyond,
        files + 1,
        "{backend}: {:?}",
        all.gaps
    );
    let alarms = all.rare("setns");
    let asked = alarms.iter().map(|call| call.detail.clone().unwrap());
    let expected = (1..=10).map(|number| format!("descriptor {}, kinds net", 1_000_000 + number));
    assert!(asked.eq(expected), "{backend}: {alarms:#?}");
}

#[test]
fn a_flood_is_a_gap_to_the_last_call_and_hides_no_alarm() {
    if skipped("a_flood_is_a_gap_to_the_last_call_and_hides_no_alarm") {
        return;
    }
    let [(ebpf, count), (ptrace, trace)] = BACKENDS;
    // A ring that 600 of these fill; then a share of it.
    check_flood(ebpf, 5000, count);
    let quota = BpfQuota {
        events: 200,
        processes: 8,
    };
    let hub = EbpfHub::load(BpfConfig::default(), quota).unwrap();
    check_flood("a share", 5000, |pid| Box::new(hub.watch(pid).unwrap()));
    // A ring that holds more than may wait to be taken.
    let large = BpfConfig {
        ring: 64 << 20,
        ..BpfConfig::default()
    };
    check_flood("a large ring", 40_000, |pid| {
        Box::new(EbpfSource::attach(pid, large).unwrap())
    });
    check_flood(ptrace, 20_000, trace);
}

/// Starts two children, and a third with a child of its own; SIGUSR1 ends them all.
const FAMILY: &str = "trap 'kill $a $b $c; exit 0' USR1; sleep 60 & a=$!; sleep 60 & b=$!; \
    sh -c 'trap \"kill \\$s; exit 0\" TERM; sleep 60 & s=$!; wait' & c=$!; wait";

#[test]
fn processes_beyond_the_bound_of_tracing_are_a_gap() {
    if skipped("processes_beyond_the_bound_of_tracing_are_a_gap") {
        return;
    }
    for (most, left_out) in [(5, 0), (3, 2), (1, 4)] {
        let mut program = Running::start(Path::new("sh"), &["-c", FAMILY]);
        until("all are there", || descendants(program.pid()) == 4);
        let source = PtraceSource::attach_up_to(program.pid(), most).unwrap();
        let mut all = All::default();
        collector(program.pid(), Box::new(source)).finish(now(), &mut all);
        assert_eq!(
            all.lost(GapCause::TableFull, GapUnit::Threads),
            left_out,
            "{most}: {:?}",
            all.gaps
        );
        program.signal(Signal::USR1);
        program.wait();
    }
}

/// How many processes one has started, and these, and so on.
fn descendants(pid: u32) -> usize {
    let children = tasks::by_parent();
    let mut waiting = vec![pid];
    let mut all = 0;
    while let Some(parent) = waiting.pop() {
        let own = children.get(&parent).into_iter().flatten();
        let before = waiting.len();
        waiting.extend(own);
        all += waiting.len() - before;
    }
    all
}
