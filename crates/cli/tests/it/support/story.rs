//! Holds a trail against what the scenario promises and against what the servers received.

use sandtrace_event::{
    AuditEvent, FileChange, FileOp, Flow, HashScope, NameSource, Payload, VerdictResult,
};
use sandtrace_lab::Scenario;
use sandtrace_lab::scenario::{ExpectedConnection, ExpectedFile, expectations};
use sandtrace_lab::world::{Connection, Log};
use sha2::{Digest as _, Sha256};

use super::{Stage, flows};

/// Everything that must be seen of the story is in the trail.
#[track_caller]
pub(crate) fn assert_story(events: &[AuditEvent], story: Scenario) {
    let expected = expectations(story);
    for connection in &expected.connections {
        assert_connection(events, connection);
    }
    for file in &expected.files {
        assert_file(events, file);
    }
}

#[track_caller]
fn assert_connection(events: &[AuditEvent], expected: &ExpectedConnection) {
    let (event, flow) = last_of(events, expected.host, expected.port);
    let verdict = event.verdict.as_ref().unwrap();
    assert_eq!(verdict.result, expected.result, "{verdict:?}");
    assert!(
        flow.bytes_sent.0 > 0 && flow.bytes_received.0 > 0,
        "{flow:?}"
    );
    assert_eq!(
        (
            [flow.missed_bytes_sent.0, flow.missed_bytes_received.0],
            flow.state.as_deref()
        ),
        ([0, 0], Some("SF"))
    );
    assert_names(flow);
    match expected.oversized_call {
        None => assert!(flow.max_call_bytes.0 > 0),
        Some((call, bound)) => {
            assert_eq!(flow.max_call.0, call);
            assert!(flow.max_call_bytes.0 > bound, "{flow:?}");
            assert_eq!(verdict.policy_rule.as_deref(), Some("tool:stripe_charge"));
            assert_caught_while_open(events, flow, bound);
        }
    }
}

/// The name is what the client claims and what the accepted resolver said of this address.
#[track_caller]
fn assert_names(flow: &Flow) {
    let claim = match flow.dst_port {
        Some(443) => NameSource::TlsSni,
        _ => NameSource::HttpHost,
    };
    for source in [NameSource::Dns, claim] {
        let name = flow.names.iter().find(|name| name.source == source);
        let name = name.unwrap_or_else(|| panic!("no {source:?} in {:?}", flow.names));
        assert!(name.agrees && *name.name == *flow.dst_host, "{name:?}");
    }
    // The lab's servers are addresses of the host, where the sandbox's tap is.
    assert_eq!(flow.findings, ["host_address"]);
}

/// The anomaly was recorded while the connection was open, before its last record.
#[track_caller]
fn assert_caught_while_open(events: &[AuditEvent], closed: &Flow, bound: u64) {
    let caught = events.iter().find_map(|event| match &event.payload {
        Payload::NetworkEgress(flow) if flow.flow_id == closed.flow_id => {
            let verdict = event.verdict.as_ref()?;
            (verdict.result == VerdictResult::Anomaly).then_some(flow)
        }
        _ => None,
    });
    let caught = caught.expect("an anomaly");
    assert_ne!(caught.phase, closed.phase);
    assert!(caught.max_call.0 == 2 && caught.max_call_bytes.0 > bound);
}

#[track_caller]
fn assert_file(events: &[AuditEvent], expected: &ExpectedFile) {
    let (event, change) = file_of(events, expected.path, expected.op);
    assert_eq!(event.verdict.as_ref().unwrap().result, expected.result);
    if let Some(contents) = &expected.contents {
        assert_contents(change, contents.as_bytes());
    }
    assert_eq!(change.sha256.is_none(), expected.op == FileOp::Deleted);
}

#[track_caller]
fn assert_contents(change: &FileChange, contents: &[u8]) {
    let digest = sandtrace_event::Digest(Sha256::digest(contents).into());
    assert_eq!(change.sha256, Some(digest), "{}", change.path);
    assert_eq!(change.sha256_scope, Some(HashScope::Whole));
    let length = u64::try_from(contents.len()).unwrap();
    assert_eq!(change.size_after.map(|size| size.0), Some(length));
}

/// Bytes, calls and files are what the servers received and the disk holds.
#[track_caller]
pub(crate) fn assert_truth(events: &[AuditEvent], story: Scenario, stage: &Stage) {
    let log = stage.world.log();
    for expected in expectations(story).connections {
        let (_, flow) = last_of(events, expected.host, expected.port);
        assert_bytes(flow, server_side(&log, flow));
    }
    let asked = events.iter().filter_map(|event| match &event.payload {
        Payload::DnsQuery(query) => Some(query.name.as_str()),
        _ => None,
    });
    let answered = log.questions.iter().map(|question| question.name.as_str());
    assert_eq!(sorted(asked), sorted(answered));
    for file in expectations(story).files {
        if file.op != FileOp::Deleted {
            let (_, change) = file_of(events, file.path, file.op);
            assert_contents(change, &stage.file(file.path));
        }
    }
}

#[track_caller]
fn assert_bytes(flow: &Flow, server: &Connection) {
    assert!(server.closed, "{server:?}");
    assert_eq!(flow.bytes_sent.0, server.received);
    assert_eq!(flow.bytes_received.0, server.sent);
    // The first call begins after the handshake; each ends where its request was whole. A TLS
    // client's last words are no call; they are counted with the handshake.
    let whole = server.requests.last().unwrap().received_so_far;
    let mut calls = Vec::new();
    let mut before = flow.handshake_bytes.0 - (server.received - whole);
    for request in &server.requests {
        calls.push(request.received_so_far - before);
        before = request.received_so_far;
    }
    let largest = calls.iter().max().copied().unwrap();
    assert_eq!(flow.max_call_bytes.0, largest, "calls {calls:?}: {flow:?}");
    assert_eq!(
        calls[usize::try_from(flow.max_call.0).unwrap() - 1],
        largest
    );
}

fn server_side<'a>(log: &'a Log, flow: &Flow) -> &'a Connection {
    let of_flow = |connection: &&Connection| {
        connection.host == flow.dst_host && Some(connection.peer.port()) == flow.src_port
    };
    log.connections.iter().find(of_flow).unwrap()
}

#[track_caller]
fn last_of<'a>(events: &'a [AuditEvent], host: &str, port: u16) -> (&'a AuditEvent, &'a Flow) {
    let mut closed = flows(events);
    closed
        .find(|(_, flow)| flow.dst_host == host && flow.dst_port == Some(port))
        .unwrap_or_else(|| panic!("no connection to {host}:{port}"))
}

#[track_caller]
fn file_of<'a>(
    events: &'a [AuditEvent],
    path: &str,
    op: FileOp,
) -> (&'a AuditEvent, &'a FileChange) {
    let changes = events.iter().filter_map(|event| match &event.payload {
        Payload::FilesystemChange(change) => Some((event, change)),
        _ => None,
    });
    // A file can be caught half-written by one scan; the next one tells the rest.
    let mut of_path: Vec<_> = changes.filter(|(_, change)| change.path == path).collect();
    let seen: Vec<_> = of_path.iter().map(|(_, change)| change.op).collect();
    assert_eq!(seen.first(), Some(&op), "{path}: {seen:?}");
    of_path.pop().unwrap()
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
