//! Observations and manifests for tests.

use crate::{Engine, Policy};
use sandtrace_event::{
    ChangeSource, Count, DnsQuery, EvidenceTier, FileChange, FileKind, FileOp, Flow, FlowPhase,
    IngressFlow, NameEvidence, NameSource, Observation, Payload, Protocol, QuiesceMethod,
    Timestamp, Verdict, WallTime,
};
use std::net::IpAddr;
use std::sync::Arc;

/// The resolver that [`engine`] accepts.
pub(crate) const RESOLVER: &str = "10.0.0.53";

/// The address of most flows.
pub(crate) const PEER: &str = "198.51.100.7";

/// The seed's manifest.
pub(crate) const SEED: &str = r#"schema_version: "1.0"

rules:
  - id: tool:stripe_charge
    type: network_egress
    destinations:
      - host: api.stripe.com
        port: 443
    max_bytes_per_call: 4096

  - id: tool:read_file
    type: filesystem
    paths:
      - /home/agent/**
      - /tmp/**
"#;

#[track_caller]
pub(crate) fn policy(text: &str) -> Policy {
    match Policy::parse("policy.yaml", text.as_bytes()) {
        Ok(policy) => policy,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

/// Rules of a manifest, without its head.
#[track_caller]
pub(crate) fn engine(rules: &str) -> Engine {
    let text = match rules.starts_with("schema_version") {
        true => rules.to_owned(),
        false => format!("schema_version: \"1.0\"\n{rules}\n"),
    };
    Engine::new(Arc::new(policy(&text)), &[address(RESOLVER)])
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn observed(payload: impl Into<Payload>) -> Observation {
    Observation {
        at: Timestamp::default(),
        payload: payload.into(),
        tier: EvidenceTier::Hypervisor,
    }
}

#[track_caller]
pub(crate) fn verdict(engine: &mut Engine, payload: impl Into<Payload>) -> Verdict {
    engine.judge(&observed(payload)).verdict.unwrap()
}

/// A verdict in one line: `anomaly tool:x: reason`.
#[track_caller]
pub(crate) fn judged(engine: &mut Engine, payload: impl Into<Payload>) -> String {
    let verdict = verdict(engine, payload);
    let rule = verdict.policy_rule.as_deref().unwrap_or("-");
    format!("{} {rule}: {}", verdict.result, verdict.reason)
}

/// An open TCP connection to [`PEER`] that has sent 600 bytes in one call.
pub(crate) fn flow(port: u16) -> Flow {
    Flow {
        aggregate: None,
        bytes_received: Count(0),
        bytes_sent: Count(600),
        calls: Count(1),
        community_id: None,
        dst_host: PEER.to_owned(),
        dst_ip: Some(address(PEER)),
        dst_port: Some(port),
        duration_us: Count(0),
        end_reason: None,
        ether_type: None,
        findings: Vec::new(),
        flow_id: Count(1),
        handshake_bytes: Count(0),
        history: None,
        http: None,
        icmp_type: None,
        interface: None,
        ip_protocol: None,
        max_call: Count(1),
        max_call_bytes: Count(600),
        missed_bytes_received: Count(0),
        missed_bytes_sent: Count(0),
        names: Vec::new(),
        packets_received: Count(1),
        packets_sent: Count(1),
        phase: FlowPhase::Open,
        protocol: Protocol::Tcp,
        resent_bytes: Count(0),
        segments_received: None,
        segments_sent: None,
        src_ip: Some(address("10.0.0.2")),
        src_port: Some(40_000),
        started_at: WallTime(0),
        state: None,
        tls: None,
        tunnel: None,
        vlan: None,
        wire_bytes_received: Count(0),
        wire_bytes_sent: Count(700),
    }
}

pub(crate) fn named(source: NameSource, name: &str, resolver: Option<&str>) -> NameEvidence {
    NameEvidence {
        agrees: false,
        name: name.into(),
        observed_at: WallTime(0),
        resolver: resolver.map(address),
        resolver_accepted: resolver.map(|resolver| resolver == RESOLVER),
        discounted: false,
        source,
    }
}

/// `dns`, `sni`, `host`: names from each source; `foreign` is an answer of a
/// resolver that is not accepted.
pub(crate) fn with_names(mut flow: Flow, names: &[(&str, &str)]) -> Flow {
    for (source, name) in names {
        flow.names.push(match *source {
            "dns" => named(NameSource::Dns, name, Some(RESOLVER)),
            "foreign" => named(NameSource::Dns, name, Some("8.8.8.8")),
            "sni" => named(NameSource::TlsSni, name, None),
            "host" => named(NameSource::HttpHost, name, None),
            _ => panic!("{source}"),
        });
        flow.dst_host = (*name).to_owned();
    }
    flow
}

/// A connection to a name that client and DNS agree on.
pub(crate) fn https(name: &str) -> Flow {
    with_names(flow(443), &[("dns", name), ("sni", name)])
}

pub(crate) fn ingress(from: &str, port: u16) -> IngressFlow {
    let mut flow = flow(50_000);
    flow.dst_ip = Some(address(from));
    flow.dst_host = from.to_owned();
    flow.src_port = Some(port);
    IngressFlow(flow)
}

pub(crate) fn query(name: &str, resolver: &str) -> DnsQuery {
    DnsQuery {
        answers: vec![PEER.to_owned()],
        answers_left_out: None,
        findings: Vec::new(),
        latency_us: Some(Count(900)),
        matched: true,
        name: name.to_owned(),
        qtype: "A".to_owned(),
        questions: None,
        rcode: Some("NOERROR".to_owned()),
        resolver: address(resolver),
        resolver_accepted: resolver == RESOLVER,
        resolver_port: 53,
    }
}

pub(crate) fn change(op: FileOp, path: &str) -> FileChange {
    FileChange {
        gid_before: None,
        kind_before: None,
        mode_before: None,
        secrets: Vec::new(),
        uid_before: None,
        xattrs_changed: Vec::new(),
        disk: None,
        gid: None,
        kind: FileKind::File,
        mode: None,
        op,
        path: path.to_owned(),
        path_b64: None,
        quiesce_method: QuiesceMethod::Live,
        quiesced: false,
        renamed_from: None,
        renamed_from_b64: None,
        sha256: None,
        sha256_scope: None,
        size_after: Some(Count(10)).filter(|_| op != FileOp::Deleted),
        size_before: None,
        source: ChangeSource::Block,
        symlink_target: None,
        symlink_target_b64: None,
        uid: None,
        unreadable: None,
    }
}
