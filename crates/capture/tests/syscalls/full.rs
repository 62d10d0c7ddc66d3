//! Tables in the kernel that are too small: what they have no room for is said.

use crate::program::{Running, compiled, skipped, until};
use crate::records::now;
use sandtrace_capture::Observer;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig};
use sandtrace_event::{CaptureGap, GapCause, GapUnit, Limits, Observation, Payload};
use sandtrace_sys::bpf::BpfConfig;
use std::time::{Duration, Instant};

/// Gap records alone.
#[derive(Default)]
struct Gaps(Vec<CaptureGap>);

impl Observer for Gaps {
    fn observe(&mut self, observation: Observation) -> Limits {
        if let Payload::CaptureGap(gap) = observation.payload {
            self.0.push(gap);
        }
        Limits::default()
    }
}

/// Watches 500 threads that come and go, and waits for a record of this loss.
#[track_caller]
fn check(test: &str, tables: BpfConfig, unit: GapUnit) {
    if skipped(test) {
        return;
    }
    let program = Running::start(&compiled("churn.c"), &["30"]);
    let source = EbpfSource::attach(program.pid(), tables).unwrap();
    let config = SyscallConfig {
        pid: program.pid(),
        vmm: None,
        disks: Vec::new(),
        name: test.to_owned(),
    };
    let mut collector = SyscallCollector::new(config, Box::new(source), now());
    let mut gaps = Gaps::default();
    let mut due = Instant::now();
    until("a loss is recorded", || {
        collector.poll(now(), &mut gaps);
        if Instant::now() >= due {
            collector.end_interval(now(), &mut gaps);
            due = Instant::now() + Duration::from_millis(200);
        }
        let mut own = gaps.0.iter().filter(|gap| gap.unit == unit);
        own.any(|gap| gap.cause == GapCause::TableFull && gap.count.0 > 0 && gap.source == test)
    });
}

#[test]
fn threads_without_room_are_a_gap() {
    let tables = BpfConfig {
        threads: 16,
        ..BpfConfig::default()
    };
    check("threads_without_room_are_a_gap", tables, GapUnit::Threads);
}

#[test]
fn calls_without_room_are_a_gap() {
    let tables = BpfConfig {
        tallies: 1,
        ..BpfConfig::default()
    };
    check("calls_without_room_are_a_gap", tables, GapUnit::Calls);
}
