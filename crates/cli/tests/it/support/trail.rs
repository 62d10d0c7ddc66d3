//! Reads trails.

use std::fs;
use std::path::Path;

use sandtrace_audit_chain::TrailReader;
use sandtrace_event::{AuditEvent, EventType, Flow, FlowPhase, Payload, TrailEnd, VerdictResult};

use super::run;

/// Every record but checkpoints, of which nobody can say how many there are.
#[track_caller]
pub(crate) fn events(trail: impl AsRef<Path>) -> Vec<AuditEvent> {
    let file = fs::File::open(trail).unwrap();
    let mut reader = TrailReader::new(file);
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        if event.event_type != EventType::Checkpoint {
            events.push(event);
        }
    }
    assert_eq!(reader.partial_bytes(), 0, "an unfinished line");
    events
}

/// Every line without its line feed.
pub(crate) fn lines(trail: impl AsRef<Path>) -> Vec<String> {
    let text = fs::read_to_string(trail).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The last record of every conversation that the sandbox began.
pub(crate) fn flows(events: &[AuditEvent]) -> impl Iterator<Item = (&AuditEvent, &Flow)> {
    events.iter().filter_map(|event| match &event.payload {
        Payload::NetworkEgress(flow) if flow.phase == FlowPhase::Close => Some((event, flow)),
        _ => None,
    })
}

/// How many records have this verdict.
pub(crate) fn judged(events: &[AuditEvent], result: VerdictResult) -> usize {
    let results = events.iter().filter_map(|event| event.verdict.as_ref());
    results.filter(|verdict| verdict.result == result).count()
}

/// What the last record says.
#[track_caller]
pub(crate) fn trail_end(events: &[AuditEvent]) -> &TrailEnd {
    match &events.last().expect("an empty trail").payload {
        Payload::TrailEnd(end) => end,
        other => panic!("the last record is no trail_end: {other:?}"),
    }
}

/// The trail ended in order, `verify` finds it whole, and every interface's counters agree.
#[track_caller]
pub(crate) fn assert_sealed(trail: impl AsRef<Path>) -> Vec<AuditEvent> {
    let trail = trail.as_ref();
    let verified = run(&[Path::new("verify"), trail]).expect(0).quiet();
    assert!(
        verified.stdout.starts_with("VALID L2 sealed"),
        "{}",
        verified.stdout
    );
    let events = events(trail);
    assert_eq!(events[0].event_type, EventType::TrailStart);
    for one in &trail_end(&events).reconciliation {
        assert!(one.matches && one.ring_drops.0 == 0, "{one:?}");
    }
    events
}
