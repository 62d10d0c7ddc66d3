//! From the flow table's view to the event's payload.

use crate::Observer;
use sandtrace_event as event;
use sandtrace_event::{
    Count, EvidenceTier, IngressFlow, NameEvidence, Observation, Payload, Timestamp, WallTime,
};
use sandtrace_wire as wire;
use sandtrace_wire::{Bounds, DnsTransaction, FlowSink, FlowView, Initiator, Moment, Phase};
use std::sync::Arc;

/// Hands what the flow table reports to an observer.
pub(super) struct Reporter<'a> {
    pub(super) observer: &'a mut dyn Observer,
    pub(super) tier: EvidenceTier,
    /// Which interface it is, where the sandbox has several.
    pub(super) interface: Option<&'a str>,
    /// Reports that may still be made before frames are read again; `None`:
    /// all that are due, however long the observer makes that take.
    pub(super) left: Option<usize>,
}

impl<'a> Reporter<'a> {
    /// One that leaves for later what can wait when the observer has no room.
    pub(super) fn patient(
        observer: &'a mut dyn Observer,
        tier: EvidenceTier,
        interface: Option<&'a str>,
    ) -> Self {
        Self {
            observer,
            tier,
            interface,
            left: Some(usize::MAX),
        }
    }

    /// One that reports whatever is due, and waits for the observer.
    pub(super) fn unbounded(
        observer: &'a mut dyn Observer,
        tier: EvidenceTier,
        interface: Option<&'a str>,
    ) -> Self {
        Self {
            observer,
            tier,
            interface,
            left: None,
        }
    }
}

impl FlowSink for Reporter<'_> {
    fn flow(&mut self, phase: Phase, at: Moment, view: &FlowView<'_>) -> Bounds {
        let flow = flow(phase, view, self.interface);
        let payload = match view.initiator {
            Initiator::Sandbox => Payload::NetworkEgress(flow),
            Initiator::Outside => Payload::NetworkIngress(IngressFlow(flow)),
        };
        self.left = self.left.map(|left| left.saturating_sub(1));
        let limits = self.observer.observe(Observation {
            at: timestamp(at),
            payload,
            tier: self.tier,
        });
        Bounds {
            max_bytes_per_call: limits.max_bytes_per_call,
            max_bytes_total: limits.max_bytes_total,
        }
    }

    fn dns(&mut self, at: Moment, query: &DnsTransaction) {
        let payload = Payload::DnsQuery(event::DnsQuery {
            answers: query.answers.clone(),
            answers_left_out: (query.left_out > 0).then(|| Count(query.left_out.into())),
            findings: query
                .tunnelling
                .then(|| wire::Finding::DnsTunnelling.as_str().into())
                .into_iter()
                .collect(),
            latency_us: query.latency_us.map(Count),
            matched: query.matched,
            name: query.name.clone(),
            qtype: query.qtype.clone(),
            questions: query.questions.map(Count),
            rcode: query.rcode.clone(),
            resolver: query.resolver,
            resolver_accepted: query.resolver_accepted,
            resolver_port: query.resolver_port,
        });
        // A question is over when it is reported: nothing is left to bound.
        self.observer.observe(Observation {
            at: timestamp(at),
            payload,
            tier: self.tier,
        });
    }

    fn room(&self) -> usize {
        self.left
            .map_or(usize::MAX, |left| left.min(self.observer.room()))
    }
}

pub(super) fn timestamp(at: Moment) -> Timestamp {
    Timestamp {
        mono_us: at.mono_us,
        wall: WallTime(at.wall_ns),
    }
}

fn flow(phase: Phase, view: &FlowView<'_>, interface: Option<&str>) -> event::Flow {
    let (protocol, ip_protocol, ether_type) = protocol(view.protocol);
    let aggregate = view.aggregate.as_ref().map(|it| event::Aggregate {
        flows: Count(it.flows),
        network: it.network.clone(),
    });
    let host = view.host.as_deref().map(ToOwned::to_owned);
    let many = |it: &event::Aggregate| it.network.clone().unwrap_or_else(|| "many".to_owned());
    let host = host
        .or_else(|| aggregate.as_ref().map(many))
        .or_else(|| view.peer.ip.map(|ip| ip.to_string()));
    event::Flow {
        aggregate,
        bytes_received: Count(view.received.payload_bytes),
        bytes_sent: Count(view.sent.payload_bytes),
        calls: Count(view.calls),
        community_id: view.community_id.clone(),
        // A frame that is not IP has no peer but the link itself.
        dst_host: host.unwrap_or_else(|| "link".to_owned()),
        dst_ip: view.peer.ip,
        dst_port: view.peer.port,
        duration_us: Count(view.last.us_since(view.started)),
        end_reason: view.end.map(end),
        ether_type,
        findings: view
            .findings
            .iter()
            .map(|finding| finding.as_str().into())
            .collect(),
        flow_id: Count(view.flow_id),
        handshake_bytes: Count(view.handshake_bytes),
        history: view.history.map(ToOwned::to_owned),
        http: view.http.map(http),
        icmp_type: view.icmp_type,
        interface: interface.map(ToOwned::to_owned),
        ip_protocol,
        max_call: Count(view.max_call),
        max_call_bytes: Count(view.max_call_bytes),
        missed_bytes_received: Count(view.missed_bytes_received),
        missed_bytes_sent: Count(view.missed_bytes_sent),
        names: view.names.iter().map(name).collect(),
        packets_received: Count(view.received.packets),
        packets_sent: Count(view.sent.packets),
        phase: match phase {
            Phase::Open => event::FlowPhase::Open,
            Phase::Update => event::FlowPhase::Update,
            Phase::Close => event::FlowPhase::Close,
        },
        protocol,
        resent_bytes: Count(
            view.sent
                .resent_bytes
                .saturating_add(view.received.resent_bytes),
        ),
        segments_received: segments(view.received),
        segments_sent: segments(view.sent),
        src_ip: view.sandbox.ip,
        src_port: view.sandbox.port,
        started_at: WallTime(view.started.wall_ns),
        state: view.state.map(|state| state.as_str().into()),
        tls: tls(view),
        tunnel: view.tunnel.map(|it| event::Tunnel {
            kind: it.kind.as_str().to_owned(),
            outer_flow_id: it.outer_flow.map(Count),
        }),
        vlan: view.vlan,
        wire_bytes_received: Count(view.received.wire_bytes),
        wire_bytes_sent: Count(view.sent.wire_bytes),
    }
}

fn segments(traffic: wire::Traffic) -> Option<Count> {
    (traffic.segments != traffic.packets).then_some(Count(traffic.segments))
}

fn protocol(protocol: wire::Protocol) -> (event::Protocol, Option<u8>, Option<u16>) {
    match protocol {
        wire::Protocol::Tcp => (event::Protocol::Tcp, None, None),
        wire::Protocol::Udp => (event::Protocol::Udp, None, None),
        wire::Protocol::Icmp => (event::Protocol::Icmp, None, None),
        wire::Protocol::Icmpv6 => (event::Protocol::Icmpv6, None, None),
        wire::Protocol::Arp => (event::Protocol::Arp, None, None),
        wire::Protocol::Ip(number) => (event::Protocol::Ip, Some(number), None),
        wire::Protocol::Ethernet(number) => (event::Protocol::Ethernet, None, Some(number)),
    }
}

fn end(end: wire::End) -> event::FlowEnd {
    match end {
        wire::End::Fin => event::FlowEnd::Fin,
        wire::End::Rst => event::FlowEnd::Rst,
        wire::End::Idle => event::FlowEnd::Idle,
        wire::End::Evicted => event::FlowEnd::Evicted,
        wire::End::Detached => event::FlowEnd::Detached,
    }
}

fn name(evidence: &wire::NameEvidence) -> NameEvidence {
    NameEvidence {
        agrees: evidence.agrees,
        name: Arc::clone(&evidence.name),
        observed_at: WallTime(evidence.observed_wall_ns),
        resolver: evidence.resolver,
        resolver_accepted: evidence.resolver_accepted,
        discounted: evidence.discounted,
        source: match evidence.source {
            wire::NameSource::Dns => event::NameSource::Dns,
            wire::NameSource::TlsSni => event::NameSource::TlsSni,
            wire::NameSource::QuicSni => event::NameSource::QuicSni,
            wire::NameSource::HttpHost => event::NameSource::HttpHost,
            wire::NameSource::SocksHost => event::NameSource::SocksHost,
            wire::NameSource::TlsCert => event::NameSource::TlsCert,
        },
    }
}

fn tls(view: &FlowView<'_>) -> Option<event::TlsFacts> {
    if view.tls.is_none() && view.certificate.is_none() {
        return None;
    }
    // A certificate may follow a hello that is broken.
    let broken = wire::TlsFacts::default();
    let facts = view.tls.unwrap_or(&broken);
    Some(event::TlsFacts {
        alpn: facts.alpn.clone(),
        certificate: view.certificate.map(certificate),
        ech: facts.ech,
        ja4: facts.ja4.clone(),
        quic_version: facts.quic_version.map(ToOwned::to_owned),
        sni: facts.sni.clone(),
        version: facts.version.map(ToOwned::to_owned),
        version_offered: facts.version_offered.map(ToOwned::to_owned),
    })
}

fn certificate(facts: &wire::CertificateFacts) -> event::CertificateFacts {
    event::CertificateFacts {
        issuer: facts.issuer.clone(),
        names: facts.names.clone(),
        names_left_out: (facts.names_left_out > 0).then_some(Count(facts.names_left_out)),
        not_after: facts.not_after.clone(),
        not_before: facts.not_before.clone(),
        serial: facts.serial.clone(),
        sha256: event::Digest(facts.sha256),
        subject: facts.subject.clone(),
    }
}

fn http(facts: &wire::HttpFacts) -> event::HttpFacts {
    event::HttpFacts {
        host: facts.host.clone(),
        method: facts.method.clone(),
        path: facts.path.clone(),
    }
}
