//! What attaching does to the traced: nothing that lasts.

use crate::program::{Running, compiled, skipped, until};
use rustix::process::Signal;
use sandtrace_capture::syscall::ebpf::{EbpfHub, EbpfSource};
use sandtrace_capture::syscall::ptrace::{PtraceError, PtraceSource};
use sandtrace_capture::syscall::{SyscallSource, names};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::bpf::{BpfConfig, BpfError, BpfQuota};
use sandtrace_sys::clock;
use sandtrace_sys::ptrace::AttachError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Set where this test binary is to trace a process and do nothing else.
const TRACE: &str = "SANDTRACE_TEST_TRACE";

/// States and tracers of all threads of a process: `S 0`.
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let statuses = tasks.flatten().filter_map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default()
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        Some(format!("{} {}", field("State:"), field("TracerPid:")))
    });
    statuses.collect()
}

#[track_caller]
fn check_free(pid: u32) {
    for thread in threads(pid) {
        assert!(
            thread.ends_with(" 0") && !thread.starts_with(['t', 'T']),
            "{thread}"
        );
    }
}

fn by_ptrace(pid: u32) -> Box<dyn SyscallSource> {
    Box::new(PtraceSource::attach(pid).unwrap())
}

fn by_ebpf(pid: u32) -> Box<dyn SyscallSource> {
    Box::new(EbpfSource::attach(pid, BpfConfig::default()).unwrap())
}

fn sleeper() -> Running {
    Running::start(Path::new("sleep"), &["600"])
}

/// A program with some 550 threads at any time, none of which lives for a second: it
/// ends by SIGUSR1.
fn churning() -> Running {
    let program = Running::start(&compiled("churn.c"), &[]);
    until("it has 500 threads", || count(program.pid()) > 500);
    program
}

/// How many threads a process has.
fn count(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    count.unwrap().trim().parse().unwrap()
}

/// Attaches and lets go again, 200 times, and looks at every thread each time.
#[track_caller]
fn check_attaching_200_times(attach: impl Fn(u32) -> Box<dyn SyscallSource>) {
    let mut program = churning();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        // What tracing held up is fewer for a moment.
        until("it has 500 threads", || count(program.pid()) > 500);
        seen.extend(tids(program.pid()));
        let mut source = attach(program.pid());
        source.detach();
        check_free(program.pid());
    }
    assert!(seen.len() > 1000, "{} threads came and went", seen.len());
    program.signal(Signal::USR1);
    program.wait();
    let sleeper = sleeper();
    for _ in 0..200 {
        drop(attach(sleeper.pid()));
        check_free(sleeper.pid());
    }
}

fn tids(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = tasks.flatten().map(|task| task.file_name());
    names
        .map(|name| name.to_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn attaching_200_times_by_ptrace_leaves_no_thread_stopped() {
    if skipped("attaching_200_times_by_ptrace_leaves_no_thread_stopped") {
        return;
    }
    check_attaching_200_times(by_ptrace);
}

#[test]
fn attaching_200_times_by_ebpf_leaves_no_thread_stopped() {
    if skipped("attaching_200_times_by_ebpf_leaves_no_thread_stopped") {
        return;
    }
    let hub = EbpfHub::load(BpfConfig::default(), BpfQuota::EVERYTHING).unwrap();
    check_attaching_200_times(|pid| Box::new(hub.watch(pid).unwrap()));
}

/// Threads that begin under watch before the program is told to end, beside the 550
/// that are there before: as many as come within a second of a quiet machine.
const BEGUN: usize = 500;

/// Threads that end and are made anew, some 550 at a time: each is counted, as its process's.
#[track_caller]
fn check_churn(attach: impl Fn(u32) -> Box<dyn SyscallSource>) {
    let mut program = churning();
    let mut source = attach(program.pid());
    let watched = tick();
    let mut begun = BTreeSet::new();
    until("enough threads come and go", || {
        let _few = source.facts();
        begun.extend(later(program.pid(), watched));
        begun.len() >= BEGUN
    });
    program.signal(Signal::USR1);
    until("every thread has ended", || {
        // What takes facts often keeps the tables from filling up.
        let _few = source.facts();
        source.has_ended()
    });
    program.wait();
    // What was looked at for lack of room is not the last.
    source.detach();
    let counts = source.counts();
    assert_eq!(counts.losses, []);
    let mut calls: BTreeMap<u32, u64> = BTreeMap::new();
    let getppid = names::number(SyscallAbi::Native, "getppid");
    for (key, thread, tally) in &counts.calls {
        assert_eq!(thread.pid, program.pid(), "{key:?}");
        if Some(key.number) == getppid {
            *calls.entry(key.tid).or_default() += tally.count;
        }
    }
    // Each that began under watch makes three, one that was there before fewer.
    assert!(calls.values().all(|count| *count <= 3), "{calls:?}");
    begun.retain(|tid| calls.get(tid) != Some(&3));
    assert_eq!(begun, BTreeSet::new(), "counted in part");
}

/// Now, in the unit in which the kernel says when a thread began: hundredths of a
/// second of the boot clock (field 22 of proc_pid_stat(5)).
fn tick() -> u64 {
    clock::boot_us() / 10_000
}

/// Threads of a process that live and began after this tick. By their ids it could not
/// be told: these begin anew after `kernel.pid_max`, which may be 32,768.
fn later(pid: u32, tick: u64) -> Vec<u32> {
    let began = |tid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
        let (_, behind_name) = stat.rsplit_once(')')?;
        behind_name.split_whitespace().nth(19)?.parse::<u64>().ok()
    };
    let mut tids = tids(pid);
    tids.retain(|tid| began(tid).is_some_and(|began| began > tick));
    tids
}

#[test]
fn threads_that_come_and_go_are_all_followed_by_ptrace() {
    if skipped("threads_that_come_and_go_are_all_followed_by_ptrace") {
        return;
    }
    check_churn(by_ptrace);
}

#[test]
fn threads_that_come_and_go_are_all_followed_by_ebpf() {
    if skipped("threads_that_come_and_go_are_all_followed_by_ebpf") {
        return;
    }
    check_churn(by_ebpf);
}

#[test]
fn a_stopped_process_stays_stopped_and_goes_on_when_it_is_told_to() {
    if skipped("a_stopped_process_stays_stopped_and_goes_on_when_it_is_told_to") {
        return;
    }
    let sleeper = sleeper();
    sleeper.signal(Signal::STOP);
    until("it stops", || threads(sleeper.pid()) == ["T 0"]);
    let mut source = PtraceSource::attach(sleeper.pid()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    source.detach();
    until("it is let go", || threads(sleeper.pid()) == ["T 0"]);
    sleeper.signal(Signal::CONT);
    until("it goes on", || threads(sleeper.pid()) == ["S 0"]);
}

/// Not a test of its own: the process that the next ones kill.
#[test]
fn tracing_for_another_test() {
    let Some(order) = std::env::var(TRACE).ok() else {
        return;
    };
    let (backend, pid) = order.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    let source = if backend == "ebpf" {
        by_ebpf(pid)
    } else {
        by_ptrace(pid)
    };
    println!("attached by {:?}", source.backend());
    std::thread::sleep(Duration::from_secs(60));
}

/// Kills the watcher in the middle: the watched works on and ends well.
#[track_caller]
fn check_killed(backend: &str) {
    let mut program = churning();
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("said");
    let mut tracer = Command::new(std::env::current_exe().unwrap());
    tracer.args(["--exact", "--nocapture", "attach::tracing_for_another_test"]);
    tracer.stdout(std::fs::File::create(&said).unwrap());
    tracer.env(TRACE, format!("{backend} {}", program.pid()));
    let tracer = Running::child(&mut tracer);
    until("it is watched", || {
        std::fs::read_to_string(&said)
            .unwrap()
            .contains("attached by")
    });
    std::thread::sleep(Duration::from_millis(200));
    let traced = |pid| {
        let threads = threads(pid);
        threads.iter().any(|thread| !thread.ends_with(" 0"))
    };
    assert_eq!(traced(program.pid()), backend == "ptrace");
    tracer.signal(Signal::KILL);
    until("the kernel lets go of it", || !traced(program.pid()));
    let free = tick();
    until("its threads still come and go", || {
        later(program.pid(), free).len() > 400
    });
    program.signal(Signal::USR1);
    program.wait();
}

#[test]
fn the_traced_goes_on_when_the_tracer_is_killed() {
    if !skipped("the_traced_goes_on_when_the_tracer_is_killed") {
        check_killed("ptrace");
    }
}

#[test]
fn the_counted_goes_on_when_the_counter_is_killed() {
    if !skipped("the_counted_goes_on_when_the_counter_is_killed") {
        check_killed("ebpf");
    }
}

#[track_caller]
fn check_refused(pid: u32, expected: &str) {
    let error = PtraceSource::attach(pid).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_cannot_be_traced_is_said_why() {
    if skipped("what_cannot_be_traced_is_said_why") {
        return;
    }
    let sleeper = sleeper();
    let first = PtraceSource::attach(sleeper.pid()).unwrap();
    check_refused(sleeper.pid(), "traces it already");
    drop(first);
    drop(PtraceSource::attach(sleeper.pid()).unwrap());
    sleeper.signal(Signal::KILL);
    until("it ends", || PtraceSource::attach(sleeper.pid()).is_err());
    let mut child = Command::new("true").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    check_refused(child.id(), "started it itself");
    child.wait().unwrap();
    check_refused(4_194_300, "trace thread 4194300: it has ended");
}

#[test]
fn what_has_ended_is_said_to_have_ended() {
    if skipped("what_has_ended_is_said_to_have_ended") {
        return;
    }
    // A shell's child whose end nobody takes note of: the shell is another program.
    let parent = Running::start(Path::new("sh"), &["-c", "true & exec sleep 600"]);
    let children = format!("/proc/{0}/task/{0}/children", parent.pid());
    let mut zombie = 0;
    until("its child is a zombie", || {
        let child = std::fs::read_to_string(&children).unwrap_or_default();
        zombie = child.trim().parse().unwrap_or_default();
        threads(zombie) == ["Z 0"]
    });
    for gone in [zombie, 4_194_300] {
        let error = PtraceSource::attach(gone).err().unwrap();
        let ended =
            matches!(&error, PtraceError::Attach(AttachError::Ended { tid }) if *tid == gone);
        assert!(ended, "{error}");
        let error = EbpfSource::attach(gone, BpfConfig::default())
            .err()
            .unwrap();
        assert!(
            matches!(&error, BpfError::Ended { pid } if *pid == gone),
            "{error}"
        );
    }
}
