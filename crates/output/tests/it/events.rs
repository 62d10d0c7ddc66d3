//! Whole events, as a trail has them.

use sandtrace_event::AuditEvent;
use serde_json::{Value, json};

const DIGEST: &str = "sha256:ab12cd34ef56ab12cd34ef56ab12cd34ef56ab12cd34ef56ab12cd34ef56ab12";

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
pub(crate) fn event(kind: &str, payload: Value, verdict: Value) -> AuditEvent {
    let line = json!({
        "agent_id": "agent-xyz",
        "event_id": "evt_01JQ6RBVG00000ZZZZ0000000A",
        "event_type": kind,
        "evidence_tier": "hypervisor",
        "mono_us": 81_230_000,
        "payload": payload,
        "prev_hash": DIGEST,
        "record_hash": DIGEST,
        "sandbox_id": "vm-001",
        "schema_version": "1.0",
        "seq": 7,
        "trace_id": "trace-001",
        "verdict": verdict,
        "wall_time": "2025-03-25T12:00:01.123456789Z",
    });
    serde_json::from_str(&line.to_string()).unwrap()
}

pub(crate) fn verdict(result: &str, rule: Option<&str>, reason: &str) -> Value {
    json!({ "policy_rule": rule, "reason": reason, "result": result })
}

pub(crate) fn flow(host: &str) -> Value {
    json!({
        "bytes_received": 3100, "bytes_sent": 12_400, "calls": 1,
        "community_id": "1:d/FP5EW3wiY1vCndhwleRRKHowQ=",
        "dst_host": host, "dst_ip": "203.0.113.9", "dst_port": 443,
        "duration_us": 52_000, "end_reason": "fin", "flow_id": 3, "handshake_bytes": 517,
        "max_call": 1, "max_call_bytes": 11_883, "missed_bytes_received": 0, "missed_bytes_sent": 0,
        "packets_received": 9, "packets_sent": 12, "resent_bytes": 0, "phase": "close", "protocol": "tcp",
        "src_ip": "10.0.0.2", "src_port": 40_112, "started_at": "2025-03-25T12:00:01.071000000Z",
        "state": "SF", "tls": { "ech": false, "sni": host, "version_offered": "1.3" },
        "wire_bytes_received": 3700, "wire_bytes_sent": 13_200,
    })
}

pub(crate) fn with(mut payload: Value, members: Value) -> Value {
    let Value::Object(members) = members else {
        panic!("not an object")
    };
    for (name, value) in members {
        payload[name] = value;
    }
    payload
}

pub(crate) fn file(path: &str) -> Value {
    json!({
        "gid": 1000, "kind": "file", "mode": 420, "op": "created", "path": path,
        "quiesce_method": "live", "quiesced": false, "sha256": DIGEST, "sha256_scope": "whole",
        "size_after": 1234, "source": "overlay", "uid": 1000,
    })
}

pub(crate) fn denied() -> AuditEvent {
    event(
        "network_egress",
        flow("evil.example"),
        verdict("deny", None, "no rule matches host"),
    )
}

pub(crate) fn end() -> AuditEvent {
    let payload = json!({
        "events": { "network_egress": 4, "trail_start": 1 },
        "reason": "interrupted",
        "verdicts": { "allow": 3, "deny": 1 },
    });
    event("trail_end", payload, Value::Null)
}
