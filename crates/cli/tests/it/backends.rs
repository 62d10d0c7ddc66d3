//! A microVM at work while its VMM's system calls are watched: the guest
//! notices nothing, and what QEMU does is what its profile says.

use crate::support::{
    Dir, Kind, Link, PATIENCE, Running, Stage, assert_sealed, assert_story, eventually, privileged,
    run, sandtrace,
};
use sandtrace_event::{
    AuditEvent, Layer, Payload, SyscallActivity, SyscallFindingKind, VerdictResult,
};
use sandtrace_lab::world::Request;
use sandtrace_lab::{Report, Scenario, scenario};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// What can be told of a run from inside the guest and by its servers.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    reports: Vec<Report>,
    digest: Vec<u8>,
    requests: Vec<Request>,
}

/// A microVM and a watch of it that has begun.
fn begin(backend: &str, dir: &Dir) -> (Stage, Running, String) {
    let stage = Stage::set(Kind::MicroVm, Scenario::Work);
    let trail = dir.text(&format!("{backend}.jsonl"));
    let mut args = stage.by_id();
    args.extend(["--trail", &trail, "--syscalls", backend].map(str::to_owned));
    args.extend(["--syscall-interval", "500ms"].map(str::to_owned));
    let watch = Running::start(sandtrace(&args)).ready();
    (stage, watch, trail)
}

/// Lets the guest work to its end.
fn play(stage: &mut Stage) -> Seen {
    let outcome = stage.play();
    assert!(outcome.status.success() && outcome.elapsed < PATIENCE);
    let log = stage.world.log();
    let requests = log.connections.iter().flat_map(|it| it.requests.clone());
    let [file] = &scenario::expectations(Scenario::Work).files[..] else {
        panic!("one file is expected")
    };
    Seen {
        reports: outcome.reports,
        digest: stage.file(file.path),
        requests: requests.collect(),
    }
}

/// One run with its system calls watched in this way.
fn work(backend: &str, dir: &Dir) -> (Seen, Vec<AuditEvent>) {
    let (mut stage, watch, trail) = begin(backend, dir);
    let seen = play(&mut stage);
    watch.wait().expect(0);
    let events = assert_sealed(&trail);
    assert_story(&events, Scenario::Work);
    (seen, events)
}

/// Who traces the threads of a process: 0 is nobody.
fn tracers(pid: u32) -> BTreeSet<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let statuses = tasks.filter_map(|it| std::fs::read_to_string(it.path().join("status")).ok());
    let tracers = statuses.filter_map(|status| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        line?.trim().parse().ok()
    });
    tracers.collect()
}

/// The same, where the watch is killed while the guest is at work, with every
/// thread of the VMM in its hands where it traces.
fn work_alone(backend: &str, dir: &Dir) -> Seen {
    let (mut stage, watch, trail) = begin(backend, dir);
    let vmm = stage.pid();
    std::thread::scope(|scope| {
        let seen = scope.spawn(|| play(&mut stage));
        eventually("a guest's calls are in the trail", || {
            let trail = std::fs::read_to_string(&trail).ok()?;
            trail.contains("\"summary\"").then_some(())
        });
        let tracers_before = Vec::from_iter(tracers(vmm));
        match (backend, &tracers_before[..]) {
            ("ptrace", [tracer]) => {
                let thread = format!("/proc/{}/task/{tracer}", watch.pid());
                assert!(Path::new(&thread).exists(), "{thread}");
            }
            _ => assert_eq!((backend, &tracers_before[..]), ("ebpf", &[0][..])),
        }
        watch.kill();
        assert!(!seen.is_finished(), "{backend}: the guest had ended");
        eventually("the kernel lets go of the VMM", || {
            (tracers(vmm) == BTreeSet::from([0])).then_some(())
        });
        seen.join().unwrap()
    })
}

#[test]
fn a_microvm_works_on_when_what_watches_it_is_killed() {
    if !privileged("a microVM whose watch is killed") {
        return;
    }
    let dir = Dir::new();
    let [counted, traced] = std::thread::scope(|scope| {
        let runs = ["ebpf", "ptrace"].map(|backend| scope.spawn(|| work_alone(backend, &dir)));
        runs.map(|run| run.join().unwrap())
    });
    assert_eq!(counted.digest.len(), 16);
    assert_eq!(counted, traced);
    let last = counted.reports.last().unwrap();
    assert_eq!(last.detail.as_bytes(), counted.digest);
}

#[test]
fn a_microvm_gets_the_same_result_however_its_vmm_is_watched() {
    if !privileged("a microVM's result under each backend") {
        return;
    }
    let dir = Dir::new();
    let [unwatched, counted, traced] = std::thread::scope(|scope| {
        let runs = ["off", "ebpf", "ptrace"].map(|backend| scope.spawn(|| work(backend, &dir)));
        runs.map(|run| run.join().unwrap())
    });
    assert!(unwatched.0.digest.len() == 16 && unwatched.0.requests.len() == 24);
    assert_eq!(counted.0, unwatched.0);
    assert_eq!(traced.0, unwatched.0);
    assert!(activities(&unwatched.1).next().is_none());
    assert_watched(&counted.1, "ebpf");
    assert_watched(&traced.1, "ptrace");
    assert_profile_learned(&dir, &[counted.1, traced.1]);
}

fn activities(events: &[AuditEvent]) -> impl Iterator<Item = (&AuditEvent, &SyscallActivity)> {
    events.iter().filter_map(|event| match &event.payload {
        Payload::SyscallActivity(activity) => Some((event, activity)),
        _ => None,
    })
}

/// Nothing was lost, nothing is outside the profile that comes with Sandtrace.
#[track_caller]
fn assert_watched(events: &[AuditEvent], backend: &str) {
    let Payload::TrailStart(start) = &events[0].payload else {
        panic!("{:?}", events[0])
    };
    let mut capture = start.capture.iter();
    let own = capture.find(|own| own.layer == Layer::Syscall).unwrap();
    assert_eq!(own.backend, backend, "{own:?}");
    let mut calls = BTreeSet::new();
    for (event, activity) in activities(events) {
        let result = event.verdict.as_ref().unwrap().result;
        match &activity.finding {
            Some(finding) => assert!(
                matches!(
                    finding.kind,
                    SyscallFindingKind::NoSeccomp | SyscallFindingKind::NewPrivsPossible
                ),
                "{finding:?}"
            ),
            None => assert_eq!(result, VerdictResult::Allow, "{event:#?}"),
        }
        let summary = activity.summary.iter().flat_map(|it| &it.calls);
        calls.extend(summary.map(|call| call.name.clone()));
    }
    for name in ["ioctl", "ppoll", "read", "write"] {
        assert!(calls.contains(name), "{calls:?}");
    }
    let lost = events.iter().find(
        |event| matches!(&event.payload, Payload::CaptureGap(gap) if gap.layer == Layer::Syscall),
    );
    assert!(lost.is_none(), "{lost:?}");
}

/// What is learned of both runs is a policy by which both are in order, and a
/// process that does something else is not.
#[track_caller]
fn assert_profile_learned(dir: &Dir, runs: &[Vec<AuditEvent>; 2]) {
    let trails = ["ebpf.jsonl", "ptrace.jsonl"].map(|name| dir.text(name));
    let learned = run(&["profile", "learn", &trails[0], &trails[1]]).expect(0);
    let policy = dir.file("learned.yaml", &learned.stdout);
    for (trail, events) in trails.iter().zip(runs) {
        let found = activities(events).filter(|(_, activity)| activity.finding.is_some());
        let found: Vec<_> = found.map(|(event, _)| event.seq.0).collect();
        let broken: Vec<_> = broken(trail, &policy).into_iter().map(|it| it.0).collect();
        // QEMU has no filters, which no list of calls is about.
        assert_eq!(broken, found);
    }
    let other = dir.text("other.jsonl");
    watch_a_shell(&other);
    let reasons: Vec<_> = broken(&other, &policy).into_iter().map(|it| it.1).collect();
    let says = |what: &str| reasons.iter().any(|reason| reason.contains(what));
    assert!(says("execve /bin/true by process"), "{reasons:#?}");
    let waits = reasons.iter().find(|reason| reason.contains("wait4"));
    let outside = "calls outside the profile of main threads: ";
    assert!(waits.unwrap().starts_with(outside), "{reasons:#?}");
}

/// Number and reason of each record of system calls that breaks a policy.
#[track_caller]
fn broken(trail: &str, policy: &str) -> Vec<(u64, String)> {
    let said = run(&["verify", "--json", "--against", policy, trail]).expect(5);
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    let violations = said["violations"].as_array().unwrap().iter();
    let calls = violations.filter(|it| it["subject"] == "syscall_activity");
    calls
        .map(|it| {
            let reason = it["reason"].as_str().unwrap().to_owned();
            (it["seq"].as_u64().unwrap(), reason)
        })
        .collect()
}

/// The trail of a shell that runs programs, watched as if it were a VMM.
#[track_caller]
fn watch_a_shell(trail: &str) {
    let link = Link::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "while :; do /bin/true; sleep 0.05; done"]);
    let shell = Running::start(shell);
    let mut args = link.watch(trail);
    args.extend(["--pid".to_owned(), shell.pid().to_string()]);
    args.extend(["--syscalls", "ebpf", "--duration", "1s"].map(str::to_owned));
    run(&args).expect(0);
}
