//! Events of every type, and trails made of them by the real writer.

use sandtrace_audit_chain::{TrailIdentity, TrailWriter};
use sandtrace_event::{
    Bytes64, CaptureGap, Count, DetachReason, Digest, DnsQuery, EndReason, EvidenceTier,
    FileChange, Flow, FlowEnd, FlowPhase, GapUnit, IngressFlow, Judged, Observation, Payload,
    SandboxAttached, SandboxDetached, Timestamp, TrailEnd, TrailStart, Verdict, VerdictResult,
    WallTime,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;

/// 2025-03-25T12:00:00Z.
const BEGIN_NS: u64 = 1_742_904_000_000_000_000;

pub(crate) fn identity(trace_id: &str) -> TrailIdentity {
    TrailIdentity {
        agent_id: "agent-xyz".into(),
        sandbox_id: "vm-é".into(),
        trace_id: trace_id.into(),
        nonce: 0x00c0_ffee_1234,
    }
}

pub(crate) fn at(mono_us: u64) -> Timestamp {
    Timestamp {
        mono_us,
        wall: WallTime(BEGIN_NS + mono_us * 1000),
    }
}

pub(crate) fn judged(
    mono_us: u64,
    payload: impl Into<Payload>,
    verdict: Option<Verdict>,
) -> Judged {
    Judged {
        observation: Observation {
            at: at(mono_us),
            payload: payload.into(),
            tier: EvidenceTier::Hypervisor,
        },
        verdict,
    }
}

pub(crate) fn verdict(result: VerdictResult, rule: Option<&str>, reason: &str) -> Verdict {
    Verdict {
        policy_rule: rule.map(str::to_owned),
        reason: reason.to_owned(),
        result,
    }
}

/// A payload by its JSON: members that it may lack need not be named.
fn payload<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

pub(crate) fn start() -> TrailStart {
    payload(json!({
        "capture": [
            {"backend": "af_packet", "layer": "network", "reason": "tap0 was named"},
        ],
        "nonce": "0000c0ffee1234",
        "origin": "sandtrace/host-7/trace-001",
        "policy_digest": Digest([0x5a; 32]),
        "policy_path": "policy.yaml",
        "tool_version": "0.1.0",
    }))
}

pub(crate) fn end(writer: &TrailWriter) -> TrailEnd {
    TrailEnd {
        events: writer.counts().events(),
        reason: EndReason::SandboxEnded,
        reconciliation: Vec::new(),
        verdicts: writer.counts().verdicts(),
    }
}

fn flow(id: u64) -> Flow {
    payload(json!({
        "bytes_received": 5_120 + id,
        "bytes_sent": 316,
        "calls": 1,
        "dst_host": "api.stripe.com",
        "dst_ip": "10.0.0.1",
        "dst_port": 443,
        "duration_us": 81_234,
        "flow_id": id,
        "handshake_bytes": 0,
        "max_call": 1,
        "max_call_bytes": 316,
        "missed_bytes_received": 0,
        "missed_bytes_sent": 0,
        "packets_received": 9,
        "packets_sent": 11,
        "phase": "open",
        "protocol": "tcp",
        "resent_bytes": 0,
        "src_ip": "10.0.0.2",
        "src_port": 40_000,
        "started_at": at(1).wall,
        "wire_bytes_received": 5_900,
        "wire_bytes_sent": 1_040,
    }))
}

/// A flow to a host of this name.
pub(crate) fn flow_named(name: &str) -> Flow {
    Flow {
        dst_host: name.to_owned(),
        ..flow(1)
    }
}

fn closed_flow() -> Flow {
    Flow {
        community_id: Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".to_owned()),
        end_reason: Some(FlowEnd::Fin),
        names: vec![payload(json!({
            "agrees": true,
            "name": "api.stripe.com",
            "observed_at": at(1).wall,
            "resolver": "fd00::1",
            "resolver_accepted": true,
            "source": "dns",
        }))],
        phase: FlowPhase::Close,
        state: Some("SF".into()),
        tls: Some(payload(json!({
            "alpn": ["h2"],
            "ech": false,
            "sni": "api.stripe.com",
            "version_offered": "1.3",
        }))),
        ..flow(1)
    }
}

/// A record of it takes about the 530 bytes that benchmarks ask for.
pub(crate) fn dns() -> DnsQuery {
    payload(json!({
        "answers": ["10.0.0.1"],
        "latency_us": 412,
        "matched": true,
        "name": "api.stripe.com",
        "qtype": "A",
        "rcode": "NOERROR",
        "resolver": "10.0.0.1",
        "resolver_accepted": true,
        "resolver_port": 53,
    }))
}

fn attached() -> SandboxAttached {
    payload(json!({
        "provider": "manual",
        "taps": [{"index": 4, "interface": "tap0"}],
    }))
}

/// A file whose name holds what JSON must escape, and more.
fn file() -> FileChange {
    let bytes = b"/home/agent/\x1b[2J\"\\\n\xf0\x9f\x98\x80\xff";
    let (path, path_b64) = Bytes64::readable_and_exact(bytes);
    payload(json!({
        "gid": 1000,
        "kind": "file",
        "mode": 0o644,
        "op": "created",
        "path": path,
        "path_b64": path_b64,
        "quiesce_method": "live",
        "quiesced": false,
        "sha256": Digest([7; 32]),
        "sha256_scope": "whole",
        "size_after": Count(u64::MAX),
        "source": "overlay",
        "uid": 1000,
    }))
}

fn gap(unit: GapUnit, count: u64) -> CaptureGap {
    payload(json!({
        "cause": "ring_drop",
        "count": count,
        "detail": "the ring was full",
        "first_at": at(0).wall,
        "last_at": at(5).wall,
        "layer": "network",
        "source": "tap0",
        "unit": unit,
    }))
}

/// One event of every type but `trail_end`, some of them judged.
pub(crate) fn events() -> Vec<Judged> {
    let allow = verdict(
        VerdictResult::Allow,
        Some("tool:stripe_charge"),
        "all holds",
    );
    let anomaly = verdict(
        VerdictResult::Anomaly,
        Some("tool:stripe_charge"),
        "call 2 sent 8192 bytes, at most 4096 are allowed",
    );
    let deny = verdict(VerdictResult::Deny, None, "no rule matches \"path\"");
    vec![
        judged(10, start(), None),
        judged(20, attached(), None),
        judged(30, dns(), Some(allow.clone())),
        judged(40, flow(1), Some(allow)),
        judged(50, closed_flow(), Some(anomaly)),
        judged(60, file(), Some(deny)),
        judged(70, gap(GapUnit::Packets, 3), None),
        judged(80, gap(GapUnit::Packets, 4), None),
        judged(90, gap(GapUnit::Bytes, 1500), None),
        judged(95, IngressFlow(flow(2)), None),
        judged(
            100,
            SandboxDetached {
                reason: DetachReason::VmmExited,
            },
            None,
        ),
    ]
}

/// Writes a sealed trail of all [`events`].
pub(crate) fn write_trail(path: &Path, trace_id: &str) {
    let mut writer = TrailWriter::create(path, identity(trace_id)).unwrap();
    for event in events() {
        let at_us = event.observation.at.mono_us;
        writer.append(event, at_us).unwrap();
    }
    let end = end(&writer);
    writer.append(judged(110, end, None), 110).unwrap();
    writer.commit().unwrap();
}

/// The bytes of a sealed trail of four records, one of which lost something
/// and one of which holds all that JSON must escape.
pub(crate) fn short_trail() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    writer.append(judged(10, start(), None), 0).unwrap();
    let deny = verdict(VerdictResult::Deny, None, "no rule matches \"path\"");
    writer.append(judged(20, file(), Some(deny)), 0).unwrap();
    writer
        .append(judged(30, gap(GapUnit::Packets, 3), None), 0)
        .unwrap();
    let end = end(&writer);
    writer.append(judged(40, end, None), 0).unwrap();
    writer.commit().unwrap();
    std::fs::read(path).unwrap()
}

/// The bytes of a sealed trail.
pub(crate) fn trail(trace_id: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    write_trail(&path, trace_id);
    std::fs::read(path).unwrap()
}

/// Lines with their line feeds.
pub(crate) fn lines(trail: &[u8]) -> Vec<Vec<u8>> {
    trail
        .split_inclusive(|&byte| byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}
