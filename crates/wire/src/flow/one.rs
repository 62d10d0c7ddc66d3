//! One flow: its counters, its TCP state, its calls.

mod datagrams;
mod numbers;
mod view;

use crate::calls::Calls;
use crate::claims::Claims;
use crate::config::FlowConfig;
use crate::dns::Streams;
use crate::findings::{Finding, Findings};
use crate::flow::carried::{Carried, Segments};
use crate::flow::dns_kind::{Dns, dns_of};
use crate::flow::marks::{begins_wireguard, by_port};
use crate::flow::origin::{first_findings, initiator, is_spoofed};
use crate::flow::sniff::{Facts, Piece, Sniff};
use crate::frame::{Frame, TcpHeader};
use crate::key::FlowKey;
use crate::packet::{Direction, Moment};
use crate::quic::{QuicSniff, starts_like_quic};
use crate::tcp::{Connection, Ending, Seen};
use crate::tls::is_alert;
use crate::tunnel::TunnelFacts;
use crate::view::{Bounds, End, Initiator, Phase, Protocol, Traffic};
use std::num::NonZeroU32;

/// A flow from its first packet to its close.
#[derive(Debug)]
pub(crate) struct Flow {
    id: u64,
    pub(crate) key: FlowKey,
    initiator: Initiator,
    started: Moment,
    last: Moment,
    sent: Traffic,
    received: Traffic,
    calls: Calls,
    handshake_bytes: u64,
    tcp: Option<Box<Connection>>,
    tunnel: Option<TunnelFacts>,
    icmp_type: Option<u8>,
    findings: Findings,
    facts: Option<Box<Facts>>,
    claims: Claims,
    sniff: Option<Box<Sniff>>,
    quic: Option<Box<QuicSniff>>,
    /// The version of QUIC that the client tries, where it is one that is not read.
    quic_version: Option<NonZeroU32>,
    /// The messages of DNS over TCP.
    dns: Option<Box<Streams>>,
    /// Its datagrams are DNS messages.
    speaks_dns: bool,
    /// Client payload was seen, so the reading has begun and may be over.
    sniffed: bool,
    /// The client's claim is known, or that it makes none.
    settled: bool,
    /// When the connection was seen to end.
    ended_us: Option<u64>,
    bounds: Bounds,
    /// The crossing of the total bound was reported.
    total_reported: bool,
    opened: bool,
    /// Claims that were reported.
    claims_reported: usize,
    /// What was odd at the last report.
    oddities_reported: Oddities,
    /// Since when there is more than that.
    odd_since_us: Option<u64>,
    pub(crate) reported_us: u64,
    pub(crate) deadline_us: Option<u64>,
}

/// What may become odd about a flow after it was reported, without looking at
/// what else is known of its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Oddities {
    findings: Findings,
    /// The server's certificate, which may not cover the client's claim.
    certificate: bool,
}

/// A client's handshake larger than this is odd: with a chain of certificates
/// it has some 6 KiB.
const LARGE_HANDSHAKE: u64 = 16 * 1024;
/// Bytes sent again that are not odd, however little was sent, where no less is
/// allowed in all.
const RESENT_ALLOWANCE: u64 = 16 * 1024;
/// Bytes of a frame that are not payload: Ethernet, two tags, IPv6, all options that
/// TCP has, and a little behind the end.
const HEADERS: u64 = 14 + 8 + 40 + 60 + 8;
/// Bytes in headers beyond those that are not odd.
const HEADERS_ALLOWANCE: u64 = 4 * 1024;

impl Flow {
    /// A flow that begins with this frame.
    pub(crate) fn begin(
        id: u64,
        key: FlowKey,
        frame: &Frame<'_>,
        carried: &Carried,
        config: &FlowConfig,
    ) -> Self {
        let Carried { at, direction, .. } = *carried;
        let tunnel = carried.tunnel.map(|(kind, outer_flow)| TunnelFacts {
            kind,
            outer_flow: Some(outer_flow),
        });
        let is_tcp = key.protocol == Protocol::Tcp && !key.later_fragments;
        let is_quic = key.protocol == Protocol::Udp
            && !key.later_fragments
            && starts_like_quic(frame.payload);
        let initiator = initiator(&key, frame.tcp, direction);
        let dns = dns_of(&key, frame, initiator);
        let mut findings = first_findings(&key, initiator, config).union(by_port(&key));
        if dns == Some(Dns::OddPort) {
            findings.insert(Finding::DnsOddPort);
        }
        if initiator == Initiator::Sandbox && begins_wireguard(&key, frame) {
            findings.insert(Finding::Wireguard);
        }
        Self {
            id,
            key,
            initiator,
            started: carried.since,
            last: at,
            sent: Traffic::default(),
            received: Traffic::default(),
            calls: Calls::default(),
            handshake_bytes: 0,
            tcp: is_tcp.then(Box::default),
            tunnel,
            icmp_type: frame.icmp_type,
            findings,
            facts: None,
            claims: Claims::default(),
            sniff: None,
            quic: None,
            quic_version: None,
            dns: (dns == Some(Dns::Tcp)).then(|| Box::new(Streams::new(config.reassembly_bytes))),
            speaks_dns: dns.is_some(),
            sniffed: false,
            settled: !is_tcp && !is_quic,
            ended_us: None,
            bounds: Bounds::default(),
            total_reported: false,
            opened: false,
            claims_reported: 0,
            oddities_reported: Oddities::default(),
            odd_since_us: None,
            reported_us: at.mono_us,
            deadline_us: None,
        }
    }

    /// Counts one frame.
    pub(crate) fn count(&mut self, frame: &Frame<'_>, carried: &Carried, config: &FlowConfig) {
        let Carried { at, direction, .. } = *carried;
        // What was only counted may be older than a frame that was seen.
        if carried.bulk.is_none() || at.mono_us > self.last.mono_us {
            self.last = at;
        }
        self.findings = self.findings.union(frame.findings);
        let by_client = self.is_by_client(direction);
        let seen = match (&mut self.tcp, frame.tcp) {
            (Some(tcp), Some(header)) => tcp.segment(by_client, header, frame.payload_len),
            _ => Seen {
                new: frame.payload_len,
                ..Seen::default()
            },
        };
        let segments = self.segments(frame, carried);
        let traffic = match direction {
            Direction::FromSandbox => &mut self.sent,
            Direction::ToSandbox => &mut self.received,
        };
        // What it is sent may have any address; what it sends first may not.
        let is_first = traffic.packets == 0 && direction == Direction::FromSandbox;
        traffic.packets += carried.frames;
        traffic.segments += segments;
        traffic.wire_bytes += carried.wire_bytes;
        traffic.payload_bytes += u64::from(seen.new);
        traffic.resent_bytes += u64::from(seen.resent);

        if is_first && is_spoofed(&self.key, config) {
            self.findings.insert(Finding::SpoofedSource);
        }
        if frame.payload_len > 0 {
            self.sniff(frame, seen, by_client, config);
            self.account(frame, seen, by_client, carried, config);
        }
        if let Some(header) = frame.tcp {
            self.compare_numbers(header, frame.payload_len, seen, by_client);
            self.after_segment(header, by_client, at);
        }
    }

    /// Packets that a frame is on a wire. Where the kernel does not say how an
    /// offload is to cut it, what both ends of the connection stated does; of
    /// other protocols nothing does.
    fn segments(&self, frame: &Frame<'_>, carried: &Carried) -> u64 {
        let size = match (carried.segments, &self.tcp, frame.tcp) {
            (Segments::Known(segments), ..) => return segments,
            (Segments::Of(0), Some(tcp), Some(header)) => tcp.segment_size(header.options),
            (Segments::Of(size), Some(_), Some(_)) => size,
            (Segments::Of(_), ..) => return carried.frames,
        };
        u64::from(frame.payload_len.div_ceil(size)).max(carried.frames)
    }

    /// Whether its messages are DNS questions and answers.
    pub(crate) const fn speaks_dns(&self) -> bool {
        self.speaks_dns
    }

    /// The next whole message of DNS over TCP that went this way.
    pub(crate) fn next_dns(&mut self, direction: Direction) -> Option<Vec<u8>> {
        self.dns.as_mut()?.next(direction == Direction::FromSandbox)
    }

    fn is_by_client(&self, direction: Direction) -> bool {
        (direction == Direction::FromSandbox) == (self.initiator == Initiator::Sandbox)
    }

    /// What must be reported right after a packet.
    pub(crate) fn due_report(&self) -> Option<Phase> {
        if !self.opened {
            return self.settled.then_some(Phase::Open);
        }
        let late_claim = self.claims.as_slice().len() > self.claims_reported;
        let call = self
            .bounds
            .max_bytes_per_call
            .is_some_and(|bound| self.calls.exceeds(bound));
        let total = self
            .bounds
            .max_bytes_total
            .is_some_and(|bound| self.sent.payload_bytes > bound && !self.total_reported);
        (late_claim || call || total).then_some(Phase::Update)
    }

    /// A report was made and answered with these bounds.
    pub(crate) fn reported(&mut self, at: Moment, bounds: Bounds) {
        self.opened = true;
        self.reported_us = at.mono_us;
        self.claims_reported = self.claims.as_slice().len();
        self.oddities_reported = self.oddities();
        self.odd_since_us = None;
        self.bounds = bounds;
        self.calls.reported(bounds.max_bytes_per_call);
        self.total_reported = bounds
            .max_bytes_total
            .is_some_and(|bound| self.sent.payload_bytes > bound);
    }

    pub(crate) const fn is_opened(&self) -> bool {
        self.opened
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// When its first frame came.
    pub(crate) const fn started(&self) -> Moment {
        self.started
    }

    /// ICMP type of its first message.
    pub(crate) const fn icmp_type(&self) -> Option<u8> {
        self.icmp_type
    }

    /// Whether a packet came since the last report.
    fn went_on(&self) -> bool {
        self.last.mono_us > self.reported_us
    }

    /// When the open report is due at the latest.
    pub(crate) fn open_due_us(&self, config: &FlowConfig) -> u64 {
        self.started.mono_us.saturating_add(config.open_delay_us)
    }

    /// When the flow is over, if no packet comes until then.
    pub(crate) fn close_due_us(&self, config: &FlowConfig) -> u64 {
        if let Some(ended_us) = self.ended_us {
            return ended_us.saturating_add(config.tcp_linger_us);
        }
        let idle_us = match (&self.tcp, self.key.protocol) {
            (Some(tcp), _) if tcp.ends.is_unanswered() => {
                return self.started.mono_us.saturating_add(config.tcp_attempt_us);
            }
            (Some(tcp), _) if tcp.ends.is_met_at_end() => config.tcp_remainder_us,
            (Some(_), _) => config.tcp_idle_us,
            (None, Protocol::Udp) => config.udp_idle_us,
            (None, _) => config.other_idle_us,
        };
        self.last.mono_us.saturating_add(idle_us)
    }

    /// Whether the connection ended or something odd was found after its
    /// deadline was set, so that it is due earlier.
    pub(crate) fn is_due_earlier(&mut self, at: Moment, config: &FlowConfig) -> bool {
        if self.opened && self.odd_since_us.is_none() && self.oddities() != self.oddities_reported {
            self.odd_since_us = Some(at.mono_us);
        }
        (self.ended_us.is_some() || self.odd_since_us.is_some())
            && self
                .deadline_us
                .is_none_or(|deadline| self.next_us(config) < deadline)
    }

    /// When what is odd and was not reported must be, where there is something.
    fn odd_due_us(&self, config: &FlowConfig) -> Option<u64> {
        Some(self.odd_since_us?.saturating_add(config.open_delay_us))
    }

    /// Whether an update is due: for its interval if the flow went on, or for
    /// something odd that was found since the last report.
    pub(crate) fn update_due(&self, now_us: u64, config: &FlowConfig) -> bool {
        let interval_us = self.reported_us.saturating_add(config.update_interval_us);
        (interval_us <= now_us && self.went_on())
            || self.odd_due_us(config).is_some_and(|due| due <= now_us)
    }

    fn oddities(&self) -> Oddities {
        let mut findings = self.findings;
        if self.handshake_bytes > LARGE_HANDSHAKE {
            findings.insert(Finding::OversizedHandshake);
        }
        if self.sent.resent_bytes > self.resent_allowance() {
            findings.insert(Finding::ExcessRetransmission);
        }
        if self.has_large_headers() {
            findings.insert(Finding::LargeHeaders);
        }
        let facts = self.facts.as_ref();
        Oddities {
            findings,
            certificate: facts.is_some_and(|facts| facts.certificate.is_some()),
        }
    }

    fn resent_allowance(&self) -> u64 {
        let bound = self.bounds.max_bytes_total.unwrap_or(RESENT_ALLOWANCE);
        bound.min(RESENT_ALLOWANCE).max(self.sent.payload_bytes)
    }

    /// Whether there are bytes in options and extension headers, or behind the end,
    /// that no count of payload has.
    fn has_large_headers(&self) -> bool {
        let Traffic {
            packets,
            wire_bytes,
            payload_bytes,
            resent_bytes,
            ..
        } = self.sent;
        let carried = payload_bytes.saturating_add(resent_bytes);
        let headers = packets
            .saturating_mul(HEADERS)
            .saturating_add(HEADERS_ALLOWANCE);
        self.key.peer().ip.is_some() && wire_bytes > carried.saturating_add(headers)
    }

    /// The moment to look at the flow next.
    pub(crate) fn next_us(&self, config: &FlowConfig) -> u64 {
        let report = if self.opened {
            self.reported_us.saturating_add(config.update_interval_us)
        } else {
            self.open_due_us(config)
        };
        let report = report.min(self.odd_due_us(config).unwrap_or(u64::MAX));
        report.min(self.close_due_us(config))
    }

    /// The end reason, if the flow is closed for `other` or has ended by itself.
    pub(crate) fn end(&self, other: End) -> End {
        match self.tcp.as_ref().and_then(|tcp| tcp.ends.ending()) {
            Some(Ending::Fin) => End::Fin,
            Some(Ending::Rst) => End::Rst,
            None => other,
        }
    }

    /// Settles what is still open before the last report.
    pub(crate) fn close(&mut self, config: &FlowConfig) {
        if let Some(sniff) = &mut self.sniff {
            sniff.end(self.facts.get_or_insert_default());
        }
        self.drop_sniff();
        if self.dns.as_ref().is_some_and(|dns| dns.has_remainder()) {
            self.findings.insert(Finding::DnsMalformed);
        }
        self.settle_calls(self.last, false, config.call_pause_us);
    }

    /// Stops reading the start of the connection for lack of memory.
    pub(crate) fn stop_reading(&mut self) {
        self.findings.insert(Finding::ReassemblyLimit);
        self.drop_sniff();
        self.quic = None;
        self.dns = None;
    }

    /// Bytes of memory that reading the start of the connection takes.
    pub(crate) fn reading_bytes(&self) -> usize {
        self.sniff.as_ref().map_or(0, |sniff| sniff.footprint())
            + self.quic.as_ref().map_or(0, |quic| quic.footprint())
            + self.dns.as_ref().map_or(0, |dns| dns.footprint())
    }

    /// Notes something odd.
    pub(crate) fn note(&mut self, finding: Finding) {
        self.findings.insert(finding);
    }

    /// Reads the start of a connection.
    fn sniff(&mut self, frame: &Frame<'_>, seen: Seen, by_client: bool, config: &FlowConfig) {
        if self.tcp.is_none() {
            self.sniff_datagram(frame, by_client);
            return;
        }
        let (bytes, len) = seen.in_stream(frame.payload, frame.payload_len);
        if let (Some(dns), Some(offset)) = (&mut self.dns, seen.offset) {
            dns.insert(by_client, offset, bytes, len);
            if dns.is_inconsistent() {
                self.findings.insert(Finding::InconsistentReassembly);
            }
        }
        if by_client && !self.sniffed {
            self.sniffed = true;
            let greeted = self.settled;
            self.sniff = Some(Box::new(Sniff::new(config.reassembly_bytes, greeted)));
        }
        if !by_client && !self.sniffed {
            // The server speaks first, so no hello of the client is waited for.
            self.settled = true;
        }
        let (Some(sniff), Some(offset)) = (&mut self.sniff, seen.offset) else {
            return;
        };
        let piece = Piece {
            offset,
            bytes,
            len,
            may_be_urgent: self.tcp.as_ref().is_some_and(|tcp| tcp.is_urgent),
        };
        let facts = self.facts.get_or_insert_default();
        if by_client {
            self.handshake_bytes += sniff.client(piece, facts);
            if !self.speaks_dns
                && self.initiator == Initiator::Sandbox
                && let Some(start) = sniff.question()
            {
                let mut dns = Streams::new(config.reassembly_bytes);
                dns.insert(
                    true,
                    0,
                    start,
                    u32::try_from(start.len()).unwrap_or(u32::MAX),
                );
                self.dns = Some(Box::new(dns));
                self.speaks_dns = true;
                self.findings.insert(Finding::DnsOddPort);
            }
        } else {
            sniff.server(piece, facts);
        }
        self.after_sniff();
    }

    fn after_sniff(&mut self) {
        let Some(sniff) = &self.sniff else { return };
        self.findings = self.findings.union(sniff.findings());
        self.settled |= sniff.is_settled();
        if sniff.is_spent() {
            self.sniff = None;
        }
        let named = self.facts.iter_mut().flat_map(|it| it.named.drain(..));
        for (name, source) in named {
            self.claims.add(&name, source, self.last);
        }
    }

    fn drop_sniff(&mut self) {
        if let Some(sniff) = &mut self.sniff {
            sniff.give_up(self.facts.get_or_insert_default());
            self.after_sniff();
            self.sniff = None;
        }
    }

    /// Tells calls apart.
    fn account(
        &mut self,
        frame: &Frame<'_>,
        seen: Seen,
        by_client: bool,
        carried: &Carried,
        config: &FlowConfig,
    ) {
        if by_client {
            if seen.new > 0 && self.sniff.as_ref().is_none_or(|sniff| !sniff.holds_calls()) {
                let alert = self.is_tls() && is_alert(frame.payload, frame.payload_len);
                let pause_us = config.call_pause_us.filter(|_| carried.bulk.is_none());
                self.settle_calls(carried.bulk.unwrap_or(carried.at), alert, pause_us);
            }
            return;
        }
        // What the server sent before it had all of the call is no answer to it.
        let answers = match (&self.tcp, frame.tcp) {
            (Some(tcp), Some(header)) => {
                seen.new > 0 && (!header.flags.ack() || tcp.from_client.covers(header.ack))
            }
            _ => true,
        };
        if answers && carried.bulk.is_none() {
            self.calls.server();
        }
    }

    /// Every client byte that is neither handshake nor in a call goes to the
    /// current call, so that none is ever left out.
    fn settle_calls(&mut self, at: Moment, alert: bool, pause_us: Option<u64>) {
        let client = match self.initiator {
            Initiator::Sandbox => &self.sent,
            Initiator::Outside => &self.received,
        };
        let settled = self.handshake_bytes + self.calls.bytes();
        let fresh = client.payload_bytes.saturating_sub(settled);
        self.calls.client(fresh, at.mono_us, pause_us, alert);
    }

    fn after_segment(&mut self, header: TcpHeader, by_client: bool, at: Moment) {
        let Some(tcp) = &self.tcp else { return };
        if !by_client
            && header.flags.ack()
            && let Some(sniff) = &mut self.sniff
        {
            sniff.acknowledged(tcp.from_client.acked(), self.facts.get_or_insert_default());
            self.after_sniff();
        }
        let Some(tcp) = &self.tcp else { return };
        if by_client && (header.flags.fin() || header.flags.rst()) {
            self.handshake_bytes += self.calls.goodbye();
        }
        if header.flags.fin() || header.flags.rst() {
            // Nothing more will be claimed on a connection that ended wordless.
            self.settled |= !self.sniffed;
            if self.ended_us.is_none() && tcp.ends.ending().is_some() {
                self.ended_us = Some(at.mono_us);
            }
        }
    }

    fn is_tls(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.is_tls)
    }
}
