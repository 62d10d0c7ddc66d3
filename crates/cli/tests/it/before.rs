//! Frames from before the watch began: the trail says how many went by unseen.

use rustix::process::Signal;
use sandtrace_event::{AuditEvent, CaptureGap, Count, GapCause, Passed, Payload};

use crate::support::{
    Dir, Link, Running, assert_sealed, events, eventually, privileged, sandtrace,
};

fn frame() -> Vec<u8> {
    [&[2; 12][..], &[0x88, 0xb5], &[7; 50]].concat()
}

fn watch(link: &Link, trail: &str, capture: &str) -> Running {
    let more = ["--capture", capture, "--syscalls", "off"].map(str::to_owned);
    let args = [&link.watch(trail)[..], &more].concat();
    let running = Running::start(sandtrace(&args));
    eventually("the watch begins", || {
        running.stderr().contains("Ctrl-C ends").then_some(())
    });
    running
}

fn passed(events: &[AuditEvent]) -> Vec<&[Passed]> {
    let attached = events.iter().filter_map(|event| match &event.payload {
        Payload::SandboxAttached(attached) => Some(&attached.passed_before[..]),
        _ => None,
    });
    attached.collect()
}

fn gaps(events: &[AuditEvent]) -> Vec<&CaptureGap> {
    let gaps = events.iter().filter_map(|event| match &event.payload {
        Payload::CaptureGap(gap) => Some(gap),
        _ => None,
    });
    gaps.collect()
}

#[test]
fn frames_from_before_the_watch_are_in_its_trail_as_a_number() {
    if !privileged("frames from before a watch") {
        return;
    }
    let dir = Dir::new();
    for capture in ["af-packet", "ebpf"] {
        let link = Link::new();
        let trail = dir.text(&format!("{capture}.jsonl"));
        for _ in 0..3 {
            link.send(&frame()).unwrap();
        }
        let killed = watch(&link, &trail, capture);
        eventually("the gap is recorded", || {
            let text = std::fs::read_to_string(&trail).unwrap_or_default();
            text.contains("before_capture").then_some(())
        });
        killed.kill();
        // What the first session saw is no gap of the second.
        let again = watch(&link, &trail, capture);
        link.send(&frame()).unwrap();
        again.signal(Signal::INT);
        again.wait().expect(0);
        let events = assert_sealed(&trail);
        let [[first], [second]] = passed(&events)[..] else {
            panic!("{events:#?}");
        };
        assert_eq!(first, second);
        let sent = (first.packets_sent, first.bytes_sent, first.own);
        assert_eq!(sent, (Count(3), Count(192), true));
        let [gap] = gaps(&events)[..] else {
            panic!("{events:#?}");
        };
        assert_eq!((gap.cause, gap.count), (GapCause::BeforeCapture, Count(3)));
        assert_eq!(gap.source, Link::NAME);
    }
}

#[test]
fn an_interface_that_nothing_had_crossed_is_not_told_of() {
    if !privileged("an interface that nothing had crossed") {
        return;
    }
    let (dir, link) = (Dir::new(), Link::new());
    let trail = dir.text("trace.jsonl");
    let watch = watch(&link, &trail, "auto");
    link.send(&frame()).unwrap();
    watch.signal(Signal::INT);
    watch.wait().expect(0);
    let events = events(&trail);
    assert_eq!(passed(&events), [&[] as &[Passed]]);
    assert_eq!(gaps(&events).len(), 0, "{events:#?}");
}
