//! Reading datagrams: QUIC, and questions of DNS on other ports.

use super::Flow;
use crate::findings::Finding;
use crate::flow::dns_kind::{Dns, dns_of};
use crate::flow::sniff::Facts;
use crate::frame::Frame;
use crate::names::NameSource;
use crate::quic::{QuicSniff, starts_like_quic, unread_version};
use crate::view::Protocol;

/// A datagram with a client's first packet of QUIC is at least so long (RFC 9000
/// section 14.1).
const LEAST_QUIC: usize = 1200;
/// So many datagrams are looked at for a question of DNS.
const FIRST_DATAGRAMS: u64 = 8;

impl Flow {
    pub(super) fn sniff_datagram(&mut self, frame: &Frame<'_>, by_client: bool) {
        if self.key.protocol != Protocol::Udp || self.key.later_fragments {
            return;
        }
        if by_client {
            self.sniff_quic(frame.payload);
            self.sniff_question(frame);
        } else {
            self.sniff_quic_answer(frame.payload);
        }
    }

    /// Reads a datagram if it may be QUIC, also after others that are not.
    fn sniff_quic(&mut self, datagram: &[u8]) {
        if !starts_like_quic(datagram) {
            if datagram.len() >= LEAST_QUIC {
                self.quic_version = unread_version(datagram).or(self.quic_version);
            }
            return;
        }
        if !self.sniffed {
            self.sniffed = true;
            self.quic = Some(Box::new(QuicSniff::new()));
        }
        let Some(quic) = &mut self.quic else { return };
        quic.client(datagram);
        for name in quic.take_names() {
            self.claims.add(&name, NameSource::QuicSni, self.last);
        }
        let odd = [
            (quic.sni_changed(), Finding::SniChanged),
            (quic.is_inconsistent(), Finding::InconsistentReassembly),
            (quic.is_unread(), Finding::StartUnread),
        ];
        for (_, finding) in odd.into_iter().filter(|(is, _)| *is) {
            self.findings.insert(finding);
        }
        if let (Some(hello), None) = (quic.hello(), &self.facts) {
            self.findings = self.findings.union(hello.findings());
            self.facts = Some(Box::new(Facts {
                tls: Some(hello.clone()),
                ..Facts::default()
            }));
        }
        self.settled |= self.facts.is_some();
    }

    /// Looks for a question of DNS on another port behind other datagrams.
    fn sniff_question(&mut self, frame: &Frame<'_>) {
        if !self.speaks_dns
            && self.sent.packets <= FIRST_DATAGRAMS
            && dns_of(&self.key, frame, self.initiator) == Some(Dns::OddPort)
        {
            self.speaks_dns = true;
            self.findings.insert(Finding::DnsOddPort);
        }
    }

    /// A server that answers in the version that the client tried, and not with
    /// those it has, took a hello that was not read.
    fn sniff_quic_answer(&mut self, datagram: &[u8]) {
        if self.quic_version.is_some() && unread_version(datagram) == self.quic_version {
            self.findings.insert(Finding::StartUnread);
        }
    }
}
