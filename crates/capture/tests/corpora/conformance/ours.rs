//! What our flow table says of a capture, on the way that `sandtrace replay` takes.

use crate::support::frames;
use sandtrace_wire::{
    Bounds, Direction, DnsTransaction, FlowConfig, FlowSink, FlowTable, FlowView, HttpFacts,
    Initiator, Moment, Orientation, Packet, Phase, Protocol, TcpState,
};
use std::net::IpAddr;
use std::path::Path;

/// One side of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) packets: u64,
    pub(super) payload: u64,
    /// Acknowledged but not in the capture.
    pub(super) missed: u64,
}

/// A conversation at its close.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) protocol: Protocol,
    /// The side that began, and the other.
    pub(super) sides: [Side; 2],
    pub(super) state: Option<TcpState>,
    pub(super) history: Option<String>,
    pub(super) community_id: Option<String>,
    pub(super) sni: Option<String>,
    pub(super) alpn: Vec<String>,
    /// The version that a server chose over TCP, whose hello is clear.
    pub(super) tls_version: Option<&'static str>,
    pub(super) quic_version: Option<&'static str>,
    /// Of its certificate, in hexadecimal digits.
    pub(super) certificate: Option<String>,
    pub(super) is_quic: bool,
    pub(super) http: Option<HttpFacts>,
    pub(super) tunnelled: bool,
}

/// Everything that was reported of one capture.
#[derive(Default)]
pub(super) struct Ours {
    pub(super) conversations: Vec<Conversation>,
    pub(super) questions: Vec<DnsTransaction>,
}

impl FlowSink for Ours {
    fn flow(&mut self, phase: Phase, _at: Moment, flow: &FlowView<'_>) -> Bounds {
        if phase == Phase::Close && flow.aggregate.is_none() {
            let sandbox = Side {
                ip: flow.sandbox.ip,
                port: flow.sandbox.port.unwrap_or_default(),
                packets: flow.sent.packets,
                payload: flow.sent.payload_bytes,
                missed: flow.missed_bytes_sent,
            };
            let peer = Side {
                ip: flow.peer.ip,
                port: flow.peer.port.unwrap_or_default(),
                packets: flow.received.packets,
                payload: flow.received.payload_bytes,
                missed: flow.missed_bytes_received,
            };
            self.conversations.push(Conversation {
                protocol: flow.protocol,
                sides: match flow.initiator {
                    Initiator::Sandbox => [sandbox, peer],
                    Initiator::Outside => [peer, sandbox],
                },
                state: flow.state,
                history: flow.history.map(ToOwned::to_owned),
                community_id: flow.community_id.clone(),
                sni: flow.tls.and_then(|tls| tls.sni.clone()),
                tls_version: flow.tls.and_then(|tls| tls.version),
                quic_version: flow.tls.and_then(|tls| tls.quic_version),
                certificate: flow.certificate.map(|it| hex(&it.sha256)),
                alpn: flow.tls.map(|tls| tls.alpn.clone()).unwrap_or_default(),
                is_quic: flow.tls.is_some() && flow.protocol == Protocol::Udp,
                http: flow.http.cloned(),
                tunnelled: flow.tunnel.is_some(),
            });
        }
        Bounds::default()
    }

    fn dns(&mut self, _at: Moment, query: &DnsTransaction) {
        self.questions.push(query.clone());
    }
}

/// Runs a capture with the timeouts that Zeek's tests have.
pub(super) fn replay(capture: &Path) -> Ours {
    const SECOND: u64 = 1_000_000;
    let mut table = FlowTable::new(FlowConfig {
        tcp_idle_us: 300 * SECOND,
        tcp_attempt_us: 5 * SECOND,
        tcp_linger_us: 5 * SECOND,
        tcp_remainder_us: 3 * SECOND,
        ..FlowConfig::default()
    });
    let mut orientation = Orientation::new(Vec::new());
    let mut ours = Ours::default();
    let mut now = Moment::default();
    for frame in frames(capture) {
        now = frame.at;
        table.tick(now, &mut ours);
        let packet = Packet {
            at: now,
            direction: Direction::FromSandbox,
            bytes: &frame.bytes,
            wire_len: frame.wire_len,
            vlan: None,
        };
        table.oriented(&packet, &mut orientation, &mut ours);
    }
    table.finish(now, &mut ours);
    ours
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
