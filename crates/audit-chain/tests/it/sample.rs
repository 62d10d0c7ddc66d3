//! Events of every type, and trails made of them by the real writer.

use sandtrace_audit_chain::{TrailIdentity, TrailWriter};
use sandtrace_event::{
    BackendInForce, Bytes64, CaptureGap, ChangeSource, Count, DetachReason, Digest, DnsQuery,
    EndReason, EvidenceTier, FileChange, FileKind, FileOp, Flow, FlowEnd, FlowPhase, GapCause,
    GapUnit, HashScope, IngressFlow, Judged, Layer, NameEvidence, NameSource, Observation, Payload,
    Protocol, QuiesceMethod, SandboxAttached, SandboxDetached, TapIdentity, Timestamp, TlsFacts,
    TrailEnd, TrailStart, Verdict, VerdictResult, WallTime,
};
use std::path::Path;

/// 2025-03-25T12:00:00Z.
const BEGIN_NS: u64 = 1_742_904_000_000_000_000;

pub(crate) fn identity(trace_id: &str) -> TrailIdentity {
    TrailIdentity {
        agent_id: "agent-xyz".to_owned(),
        sandbox_id: "vm-é".to_owned(),
        trace_id: trace_id.to_owned(),
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

pub(crate) fn start() -> TrailStart {
    TrailStart {
        binary_digest: None,
        boot_id: None,
        capture: vec![BackendInForce {
            backend: "af_packet".to_owned(),
            layer: Layer::Network,
            reason: "tap0 was named".to_owned(),
        }],
        nonce: "0000c0ffee1234".to_owned(),
        origin: "sandtrace/host-7/trace-001".to_owned(),
        policy_digest: Some(Digest([0x5a; 32])),
        policy_path: Some("policy.yaml".to_owned()),
        resolvers: Vec::new(),
        tool_version: "0.1.0".to_owned(),
    }
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
    Flow {
        bytes_received: Count(5_120 + id),
        bytes_sent: Count(316),
        calls: Count(1),
        community_id: None,
        dst_host: "api.stripe.com".to_owned(),
        dst_ip: Some("10.0.0.1".parse().unwrap()),
        dst_port: Some(443),
        duration_us: Count(81_234),
        end_reason: None,
        ether_type: None,
        findings: Vec::new(),
        flow_id: Count(id),
        handshake_bytes: Count(0),
        http: None,
        icmp_type: None,
        ip_protocol: None,
        max_call: Count(1),
        max_call_bytes: Count(316),
        missed_bytes: Count(0),
        names: Vec::new(),
        packets_received: Count(9),
        packets_sent: Count(11),
        phase: FlowPhase::Open,
        protocol: Protocol::Tcp,
        resent_bytes: Count(0),
        src_ip: Some("10.0.0.2".parse().unwrap()),
        src_port: Some(40_000),
        started_at: WallTime(BEGIN_NS + 1_000),
        state: None,
        tls: None,
        vlan: None,
        wire_bytes_received: Count(5_900),
        wire_bytes_sent: Count(1_040),
    }
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
        names: vec![NameEvidence {
            agrees: true,
            name: "api.stripe.com".to_owned(),
            observed_at: WallTime(BEGIN_NS + 7),
            resolver: Some("fd00::1".parse().unwrap()),
            resolver_accepted: Some(true),
            source: NameSource::Dns,
        }],
        phase: FlowPhase::Close,
        state: Some("SF".to_owned()),
        tls: Some(TlsFacts {
            alpn: vec!["h2".to_owned()],
            ech: false,
            sni: Some("api.stripe.com".to_owned()),
            version_offered: Some("1.3".to_owned()),
        }),
        ..flow(1)
    }
}

/// A record of it takes about the 530 bytes that benchmarks ask for.
pub(crate) fn dns() -> DnsQuery {
    DnsQuery {
        answers: vec!["10.0.0.1".to_owned()],
        latency_us: Some(Count(412)),
        matched: true,
        name: "api.stripe.com".to_owned(),
        qtype: "A".to_owned(),
        rcode: Some("NOERROR".to_owned()),
        resolver: "10.0.0.1".parse().unwrap(),
        resolver_accepted: true,
        resolver_port: 53,
    }
}

fn attached() -> SandboxAttached {
    SandboxAttached {
        coverage: Vec::new(),
        disks: Vec::new(),
        provider: "manual".to_owned(),
        taps: vec![TapIdentity {
            index: 4,
            interface: "tap0".to_owned(),
            netns: None,
        }],
        vmm: None,
    }
}

/// A file whose name holds what JSON must escape, and more.
fn file() -> FileChange {
    let bytes = b"/home/agent/\x1b[2J\"\\\n\xf0\x9f\x98\x80\xff";
    let (path, path_b64): (String, Option<Bytes64>) = Bytes64::readable_and_exact(bytes);
    FileChange {
        disk: None,
        gid: Some(1000),
        kind: FileKind::File,
        mode: Some(0o644),
        op: FileOp::Created,
        path,
        path_b64,
        quiesce_method: QuiesceMethod::Live,
        quiesced: false,
        renamed_from: None,
        renamed_from_b64: None,
        sha256: Some(Digest([7; 32])),
        sha256_scope: Some(HashScope::Whole),
        size_after: Some(Count(u64::MAX)),
        size_before: None,
        source: ChangeSource::Overlay,
        symlink_target: None,
        symlink_target_b64: None,
        uid: Some(1000),
        unreadable: None,
    }
}

fn gap(unit: GapUnit, count: u64) -> CaptureGap {
    CaptureGap {
        cause: GapCause::RingDrop,
        count: Count(count),
        detail: "the ring was full".to_owned(),
        first_at: WallTime(BEGIN_NS),
        last_at: WallTime(BEGIN_NS + 5),
        layer: Layer::Network,
        source: "tap0".to_owned(),
        unit,
    }
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
        writer.append(&event, event.observation.at.mono_us).unwrap();
    }
    let end = end(&writer);
    writer.append(&judged(110, end, None), 110).unwrap();
    writer.commit().unwrap();
}

/// The bytes of a sealed trail of four records, one of which lost something
/// and one of which holds all that JSON must escape.
pub(crate) fn short_trail() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let mut writer = TrailWriter::create(&path, identity("trace-001")).unwrap();
    writer.append(&judged(10, start(), None), 0).unwrap();
    let deny = verdict(VerdictResult::Deny, None, "no rule matches \"path\"");
    writer.append(&judged(20, file(), Some(deny)), 0).unwrap();
    writer
        .append(&judged(30, gap(GapUnit::Packets, 3), None), 0)
        .unwrap();
    let end = end(&writer);
    writer.append(&judged(40, end, None), 0).unwrap();
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
