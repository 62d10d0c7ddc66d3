//! `sandtrace watch` beside a world that knows the truth.

use std::collections::BTreeSet;
use std::time::Instant;

use rustix::process::Signal;
use sandtrace_event::{DetachReason, EndReason, EventType, FileOp, Payload};
use sandtrace_lab::Scenario;

use crate::support::{
    Dir, Kind, Running, Stage, assert_sealed, assert_story, assert_truth, flows, privileged, run,
    sandtrace, text, trail_end,
};

/// Two at once, found in two ways: neither hears of the other.
#[test]
fn two_sandboxes_side_by_side() {
    if !privileged("two sandboxes side by side") {
        return;
    }
    let dir = Dir::new();
    let (first, second) = (dir.text("vm.jsonl"), dir.text("box.jsonl"));
    std::thread::scope(|scope| {
        let vm = || by_id(Scenario::StripeExfil, &first);
        let vm = scope.spawn(vm);
        by_hand_with_pid(Scenario::PersistPlant, &second);
        vm.join().unwrap();
    });
    let hosts = |trail: &str| -> BTreeSet<String> {
        let events = assert_sealed(trail);
        flows(&events)
            .map(|(_, flow)| flow.dst_host.clone())
            .collect()
    };
    let ip = "203.0.113.53";
    let (vm, container) = (hosts(&first), hosts(&second));
    assert!(vm.contains("pastebin-drop.example"), "{vm:?}");
    assert!(
        !container.contains("pastebin-drop.example"),
        "{container:?}"
    );
    assert!(vm.contains(ip) && container.contains(ip));
}

/// QEMU by its `-name`: everything about it is found out.
fn by_id(story: Scenario, trail: &str) {
    let mut stage = Stage::set(Kind::MicroVm, story);
    let unknown = run(&["watch", "--sandbox-id", "none-such", "--trail", trail]);
    unknown
        .expect(69)
        .one_line(&["no sandbox \"none-such\"", "found: ", &stage.id]);
    let watch = Running::start(with_trail(stage.by_id(), trail)).ready();
    stage.play();
    let watch = watch.wait().expect(0);
    assert!(
        watch.stderr.contains("next: sandtrace verify "),
        "{}",
        watch.stderr
    );
    let events = assert_sealed(trail);
    assert_eq!(events[1].event_type, EventType::SandboxAttached);
    let Payload::SandboxAttached(attached) = &events[1].payload else {
        panic!("{:?}", events[1])
    };
    assert_eq!(attached.provider, "qemu");
    assert_eq!(attached.vmm.as_ref().unwrap().pid, stage.pid());
    assert_eq!(attached.taps[0].interface, stage.interface());
    assert_eq!(trail_end(&events).reason, EndReason::SandboxEnded);
    assert_story(&events, story);
    assert_truth(&events, story, &stage);
}

/// A container by its parts; the watch ends with its process.
fn by_hand_with_pid(story: Scenario, trail: &str) {
    let mut stage = Stage::set(Kind::Namespace, story);
    let mut args = stage.by_hand();
    args.extend(["--pid".to_owned(), stage.pid().to_string()]);
    let watch = Running::start(with_trail(args, trail)).ready();
    stage.play();
    watch.wait().expect(0);
    let events = assert_sealed(trail);
    assert_eq!(trail_end(&events).reason, EndReason::SandboxEnded);
    assert_story(&events, story);
    assert_truth(&events, story, &stage);
}

/// A microVM's tap and disk by hand: no process is known, so a signal ends the watch.
#[test]
fn a_tap_and_a_disk_by_hand() {
    if !privileged("a tap and a disk by hand") {
        return;
    }
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let story = Scenario::StripeExfil;
    let mut stage = Stage::set(Kind::MicroVm, story);
    let watch = Running::start(with_trail(stage.by_hand(), &trail)).ready();
    stage.play();
    let ended = Instant::now();
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    assert!(ended.elapsed().as_secs() < 20, "a slow end");
    let events = assert_sealed(&trail);
    assert_eq!(trail_end(&events).reason, EndReason::Interrupted);
    let interrupted = DetachReason::Interrupted;
    assert!(events.iter().any(|event| matches!(
        &event.payload,
        Payload::SandboxDetached(detached) if detached.reason == interrupted
    )));
    assert_story(&events, story);
    assert_truth(&events, story, &stage);
    let names = ["trace.jsonl", "trace.jsonl.checkpoint"];
    assert_eq!(dir.names(), names, "{}", text(dir.at()));
}

/// Compared with an image of before, a disk has what was changed before the watch began.
#[test]
fn a_disk_is_compared_with_its_base_and_searched_for_secrets() {
    if !privileged("a base and secrets") {
        return;
    }
    let dir = Dir::new();
    let (trail, base) = (dir.text("trace.jsonl"), dir.text("base.img"));
    let mut stage = Stage::set(Kind::MicroVm, Scenario::PersistPlant);
    std::fs::copy(stage.disk(), &base).unwrap();
    let key = dir.file("key", format!("token = ghp_{}\n", "a1B2".repeat(9)));
    let write = std::process::Command::new("/sbin/debugfs")
        .args(["-w", "-R", &format!("write {key} planted")])
        .arg(stage.disk())
        .output()
        .unwrap();
    assert!(write.status.success(), "{write:?}");
    let mut args = stage.by_hand();
    args.extend(["--base", &base, "--scan-secrets"].map(str::to_owned));
    let watch = Running::start(with_trail(args, &trail)).ready();
    stage.play();
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let events = assert_sealed(&trail);
    let planted = events.iter().find_map(|event| match &event.payload {
        Payload::FilesystemChange(change) if change.path == "/planted" => Some(change),
        _ => None,
    });
    let planted = planted.expect("what was there before the watch, and not in the base");
    assert_eq!(planted.op, FileOp::Created);
    let [found] = &planted.secrets[..] else {
        panic!("{planted:?}")
    };
    assert_eq!((&*found.rule, found.count.0), ("github_token", 1));
    assert!(
        !std::fs::read_to_string(&trail)
            .unwrap()
            .contains("a1B2a1B2")
    );

    let gone = dir.text("gone.img");
    let args = [
        "watch",
        "--sandbox-id",
        "x",
        "--disk",
        &base,
        "--base",
        &gone,
        "--trail",
        &trail,
    ];
    run(&args).expect(69).one_line(&["read the base", &gone]);
}

fn with_trail(mut args: Vec<String>, trail: &str) -> std::process::Command {
    args.extend(["--trail", trail].map(str::to_owned));
    sandtrace(&args)
}
