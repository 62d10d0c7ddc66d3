//! A microVM at work while its VMM's system calls are watched: the guest
//! notices nothing, and what QEMU does is what its profile says.

use crate::support::{
    Dir, Kind, PATIENCE, Running, Stage, assert_sealed, assert_story, privileged, run, sandtrace,
};
use sandtrace_event::{
    AuditEvent, Layer, Payload, SyscallActivity, SyscallFindingKind, VerdictResult,
};
use sandtrace_lab::world::Request;
use sandtrace_lab::{Report, Scenario, scenario};
use std::collections::BTreeSet;

/// What can be told of a run from inside the guest and by its servers.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    reports: Vec<Report>,
    digest: Vec<u8>,
    requests: Vec<Request>,
}

/// One run with its system calls watched in this way.
fn work(backend: &str, dir: &Dir) -> (Seen, Vec<AuditEvent>) {
    let mut stage = Stage::set(Kind::MicroVm, Scenario::Work);
    let trail = dir.text(&format!("{backend}.jsonl"));
    let mut args = stage.by_id();
    args.extend(["--trail", &trail, "--syscalls", backend].map(str::to_owned));
    args.extend(["--syscall-interval", "500ms"].map(str::to_owned));
    let watch = Running::start(sandtrace(&args)).ready();
    let outcome = stage.play();
    watch.wait().expect(0);
    assert!(outcome.status.success() && outcome.elapsed < PATIENCE);
    let log = stage.world.log();
    let requests = log.connections.iter().flat_map(|it| it.requests.clone());
    let [file] = &scenario::expectations(Scenario::Work).files[..] else {
        panic!("one file is expected")
    };
    let seen = Seen {
        reports: outcome.reports,
        digest: stage.file(file.path),
        requests: requests.collect(),
    };
    let events = assert_sealed(&trail);
    assert_story(&events, Scenario::Work);
    (seen, events)
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
    assert_profile_learned(&dir);
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

/// What is learned of both runs is a policy by which both are in order.
#[track_caller]
fn assert_profile_learned(dir: &Dir) {
    let trails = ["ebpf.jsonl", "ptrace.jsonl"].map(|name| dir.text(name));
    let learned = run(&["profile", "learn", &trails[0], &trails[1]]).expect(0);
    let policy = dir.file("learned.yaml", &learned.stdout);
    let listed = run(&["policy", "check", &policy]).expect(0);
    assert!(listed.stdout.contains("main"), "{listed:?}");
}
