//! What a report shows of a flow.

use super::Flow;
use crate::community_id::community_id;
use crate::findings::Finding;
use crate::flow::certified::certified;
use crate::flow::marks::{by_content, not_in_dns};
use crate::names::{Known, NameBook};
use crate::view::{End, FlowView, Initiator};

impl Flow {
    /// What a report shows.
    pub(crate) fn view(&self, end: Option<End>, book: &NameBook) -> FlowView<'_> {
        let peer = self.key.peer();
        let known = match (peer.ip, self.initiator) {
            // Whoever ends a tunnel gives its inner addresses as it likes.
            (Some(_), _) if self.tunnel.is_some() => NameBook::claimed(self.claims.as_slice()),
            (Some(ip), Initiator::Sandbox) => book.evidence(ip, self.claims.as_slice()),
            (Some(ip), Initiator::Outside) => Known {
                forgotten: false,
                ..book.evidence(ip, &[])
            },
            (None, _) => Known::default(),
        };
        let largest = self.calls.largest();
        let facts = self.facts.as_deref();
        let mut findings = self.oddities().findings;
        for claim in known.without_dns() {
            findings = findings.union(not_in_dns(claim, peer.ip));
        }
        if known.forgotten && !self.speaks_dns {
            findings.insert(Finding::NamesForgotten);
        }
        findings = findings.union(by_content(
            &self.key,
            known.best.as_deref(),
            self.claims.as_slice(),
            facts.and_then(|facts| facts.tls.as_ref()),
            facts.and_then(|facts| facts.http.as_ref()),
        ));
        let mut names = known.evidence;
        let certificate = facts.and_then(|facts| facts.certificate.as_deref());
        if let Some(certificate) = certificate {
            findings = findings.union(certified(certificate, self.last, &mut names));
        }
        let any_payload = self.sent.payload_bytes + self.received.payload_bytes > 0;
        let missed = self.tcp.as_ref().map_or((0, 0), |tcp| {
            (tcp.from_client.missed(), tcp.from_server.missed())
        });
        let (missed_bytes_sent, missed_bytes_received) = match self.initiator {
            Initiator::Sandbox => missed,
            Initiator::Outside => (missed.1, missed.0),
        };
        FlowView {
            flow_id: self.id,
            initiator: self.initiator,
            protocol: self.key.protocol,
            sandbox: self.key.sandbox(),
            peer,
            vlan: self.key.vlan(),
            later_fragments: self.key.later_fragments,
            sent: self.sent,
            received: self.received,
            calls: self.calls.count(),
            max_call: largest.number,
            max_call_bytes: largest.bytes,
            handshake_bytes: self.handshake_bytes,
            missed_bytes_sent,
            missed_bytes_received,
            history: self.tcp.as_ref().map(|tcp| tcp.history.as_str()),
            state: self.tcp.as_ref().map(|tcp| tcp.ends.state(any_payload)),
            end,
            community_id: community_id(&self.key, self.initiator),
            names,
            host: known.best,
            tls: facts.and_then(|facts| facts.tls.as_ref()),
            certificate,
            http: facts.and_then(|facts| facts.http.as_ref()),
            icmp_type: self.icmp_type,
            started: self.started,
            last: self.last,
            tunnel: self.tunnel,
            aggregate: None,
            findings,
        }
    }
}
