//! Sandboxes that are not there, or not for long.

use sandtrace_event::{DetachReason, EndReason, EventType, GapCause, Payload};

use crate::support::{
    Dir, Link, Running, events, eventually, privileged, run, sandtrace, trail_end,
};

/// Nothing is made for a sandbox that is not there.
#[track_caller]
fn check(args: &[&str], parts: &[&str]) {
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let watch = ["watch", "--sandbox-id", "box", "--trail", &trail];
    run(&[&watch[..], args].concat()).expect(69).one_line(parts);
    assert!(dir.names().is_empty(), "{:?}", dir.names());
}

#[test]
fn nothing_of_that_name() {
    check(&["--tap", "none0"], &["no interface", "none0"]);
    check(
        &["--tap", "a-name-that-is-far-too-long"],
        &["a-name-that-is-far-too-long"],
    );
    check(
        &["--tap", "lo", "--netns", "none"],
        &["/run/netns/none", "No such file"],
    );
    check(
        &["--tap", "lo", "--netns", "/none"],
        &["/none", "No such file"],
    );
    check(&["--pid", "4194303"], &["process 4194303", "No such"]);
    check(&["--pid", "0"], &["process 0"]);
    let own = std::process::id().to_string();
    check(
        &["--pid", &own],
        &["nothing of sandbox box can be captured: "],
    );
    // What is found is listed, what is not is said.
    check(&[], &["no sandbox \"box\" on this host; "]);
}

#[test]
fn namespaces_that_are_none() {
    if privileged("namespaces that are none") {
        check(&["--tap", "lo", "--netns", "/etc/passwd"], &["/etc/passwd"]);
        check(
            &["--tap", "lo", "--netns", "/proc/self/ns/mnt"],
            &["/proc/self/ns/mnt"],
        );
    }
}

#[test]
fn ids_that_cannot_be_one() {
    for id in ["", "a/b", "..", "a b", "a\nb", "\x1b[31m", &"x".repeat(129)] {
        let ran = run(&["watch", "--sandbox-id", id]).expect(64);
        assert!(!ran.stderr.contains('\x1b'), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}

/// A device that goes while it is watched: a record says so, and the trail ends in order.
#[test]
fn a_tap_that_vanishes() {
    if !privileged("a tap that vanishes") {
        return;
    }
    let dir = Dir::new();
    let trail = dir.text("trace.jsonl");
    let link = Link::new();
    let watch = Running::start(sandtrace(&link.watch(&trail))).ready();
    link.send(&arp_request()).unwrap();
    eventually("the frame is seen", || {
        watch.stdout().contains("arp").then_some(())
    });
    link.ip(&["link", "del", Link::NAME]);
    let watch = watch.wait().expect(0);
    assert!(watch.stderr.contains("1 capture_gap"), "{}", watch.stderr);
    let events = events(&trail);
    let gap = events.iter().find_map(|event| match &event.payload {
        Payload::CaptureGap(gap) => Some(gap),
        _ => None,
    });
    let gap = gap.unwrap();
    assert_eq!(
        (gap.cause, gap.source.as_str()),
        (GapCause::InterfaceGone, Link::NAME)
    );
    assert!(events.iter().any(|event| matches!(
        &event.payload,
        Payload::SandboxDetached(detached) if detached.reason == DetachReason::InterfaceGone
    )));
    assert!(
        events
            .iter()
            .any(|event| event.event_type == EventType::NetworkEgress)
    );
    assert_eq!(trail_end(&events).reason, EndReason::CaptureFailed);
    let verified = run(&["verify", &trail]).expect(0);
    assert!(
        verified.stdout.contains("1 interfaces lost"),
        "{}",
        verified.stdout
    );
}

/// Who has 10.0.0.1? (RFC 826)
pub(crate) fn arp_request() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    let mac = [2, 0, 0, 0, 0, 1];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    frame
}
