//! What attaching does to the traced: nothing that lasts.

use crate::program::{Running, compiled, skipped, until};
use rustix::process::Signal;
use sandtrace_capture::syscall::SyscallSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

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

fn sleeper() -> Running {
    Running::start(Path::new("sleep"), &["600"])
}

#[test]
fn attaching_and_detaching_200_times_leaves_no_thread_stopped() {
    if skipped("attaching_and_detaching_200_times_leaves_no_thread_stopped") {
        return;
    }
    let mut program = Running::start(&compiled("churn.c"), &["6"]);
    let began = Instant::now();
    for _ in 0..200 {
        let mut source = PtraceSource::attach(program.pid()).unwrap();
        source.detach();
        check_free(program.pid());
        // The program ends after 6 s; a slow machine makes fewer rounds.
        if began.elapsed() > Duration::from_secs(5) {
            break;
        }
    }
    program.wait();
    let sleeper = sleeper();
    for _ in 0..200 {
        drop(PtraceSource::attach(sleeper.pid()).unwrap());
        check_free(sleeper.pid());
    }
}

#[test]
fn threads_that_come_and_go_are_all_followed() {
    if skipped("threads_that_come_and_go_are_all_followed") {
        return;
    }
    let mut program = Running::start(&compiled("churn.c"), &["2"]);
    until("it has threads", || threads(program.pid()).len() > 1);
    let mut source = PtraceSource::attach(program.pid()).unwrap();
    program.wait();
    until("every thread has ended", || source.has_ended());
    let counts = source.counts();
    assert_eq!(counts.losses, []);
    let made: std::collections::BTreeSet<_> =
        counts.calls.iter().map(|(key, ..)| key.tid).collect();
    assert!(made.len() > 500, "{} threads", made.len());
    assert!(
        counts
            .calls
            .iter()
            .all(|(_, thread, _)| thread.pid == program.pid())
    );
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

/// Not a test of its own: the process that the next one kills.
#[test]
fn tracing_for_another_test() {
    let Some(pid) = std::env::var(TRACE).ok().and_then(|pid| pid.parse().ok()) else {
        return;
    };
    let _source = PtraceSource::attach(pid).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_traced_goes_on_when_the_tracer_is_killed() {
    if skipped("the_traced_goes_on_when_the_tracer_is_killed") {
        return;
    }
    let mut program = Running::start(&compiled("churn.c"), &["3"]);
    let mut tracer = Command::new(std::env::current_exe().unwrap());
    tracer.args(["--exact", "attach::tracing_for_another_test"]);
    tracer.stdout(std::process::Stdio::null());
    tracer.env(TRACE, program.pid().to_string());
    let tracer = Running::child(&mut tracer);
    until("it is traced", || {
        threads(program.pid())
            .iter()
            .any(|thread| !thread.ends_with(" 0"))
    });
    std::thread::sleep(Duration::from_millis(200));
    tracer.signal(Signal::KILL);
    until("the kernel lets go of it", || {
        threads(program.pid())
            .iter()
            .all(|thread| thread.ends_with(" 0"))
    });
    program.wait();
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
    check_refused(4_194_300, "list the threads of process 4194300");
}
