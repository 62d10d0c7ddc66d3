//! A flow table with a clock and a sink that keeps every report.

use crate::{
    Bounds, Direction, DnsTransaction, End, FlowConfig, FlowSink, FlowTable, FlowView, HttpFacts,
    Initiator, Moment, NameEvidence, Packet, Phase, Protocol, TcpState, Traffic,
};

/// One report, kept.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) phase: Phase,
    pub(crate) flow_id: u64,
    pub(crate) initiator: Initiator,
    pub(crate) protocol: Protocol,
    pub(crate) vlan: Option<u16>,
    pub(crate) started: Moment,
    pub(crate) sent: Traffic,
    pub(crate) received: Traffic,
    pub(crate) calls: u64,
    pub(crate) max_call: u64,
    pub(crate) max_call_bytes: u64,
    pub(crate) handshake_bytes: u64,
    pub(crate) missed_bytes: [u64; 2],
    pub(crate) state: Option<TcpState>,
    pub(crate) end: Option<End>,
    pub(crate) names: Vec<NameEvidence>,
    pub(crate) host: Option<String>,
    pub(crate) http: Option<HttpFacts>,
    pub(crate) tls: Option<crate::TlsFacts>,
    pub(crate) findings: Vec<&'static str>,
    pub(crate) peer: crate::Endpoint,
    pub(crate) tunnel: Option<crate::TunnelFacts>,
    pub(crate) aggregate: Option<crate::Aggregate>,
}

/// Keeps reports and answers all of them with the same bounds.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) bounds: Bounds,
    pub(crate) reports: Vec<Report>,
    pub(crate) dns: Vec<DnsTransaction>,
    /// It has room for no report.
    pub(crate) full: bool,
}

impl FlowSink for Recorder {
    fn flow(&mut self, phase: Phase, _at: Moment, flow: &FlowView<'_>) -> Bounds {
        self.reports.push(Report {
            phase,
            flow_id: flow.flow_id,
            initiator: flow.initiator,
            protocol: flow.protocol,
            vlan: flow.vlan,
            started: flow.started,
            sent: flow.sent,
            received: flow.received,
            calls: flow.calls,
            max_call: flow.max_call,
            max_call_bytes: flow.max_call_bytes,
            handshake_bytes: flow.handshake_bytes,
            missed_bytes: [flow.missed_bytes_sent, flow.missed_bytes_received],
            state: flow.state,
            end: flow.end,
            names: flow.names.clone(),
            host: flow.host.as_deref().map(ToOwned::to_owned),
            http: flow.http.cloned(),
            tls: flow.tls.cloned(),
            peer: flow.peer,
            tunnel: flow.tunnel,
            aggregate: flow.aggregate.clone(),
            findings: flow.findings.iter().map(crate::Finding::as_str).collect(),
        });
        self.bounds
    }

    fn dns(&mut self, _at: Moment, query: &DnsTransaction) {
        self.dns.push(query.clone());
    }

    fn room(&self) -> usize {
        if self.full { 0 } else { usize::MAX }
    }
}

/// A table, its sink and a clock.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) table: FlowTable,
    pub(crate) sink: Recorder,
    pub(crate) now_us: u64,
}

impl Lab {
    pub(crate) fn new(config: FlowConfig) -> Self {
        Self {
            table: FlowTable::new(config),
            sink: Recorder::default(),
            now_us: 1_000_000,
        }
    }

    pub(crate) fn with_call_bound(config: FlowConfig, bytes: u64) -> Self {
        let mut lab = Self::new(config);
        lab.sink.bounds.max_bytes_per_call = Some(bytes);
        lab
    }

    pub(crate) fn now(&self) -> Moment {
        Moment {
            mono_us: self.now_us,
            wall_ns: 1_700_000_000_000_000_000 + self.now_us * 1000,
        }
    }

    /// Plays a whole frame, 10 µs after the last one.
    pub(crate) fn play(&mut self, (direction, bytes): &(Direction, Vec<u8>)) {
        self.play_cut(*direction, bytes, bytes.len());
    }

    /// Plays a frame of which only the first `captured` bytes were captured.
    pub(crate) fn play_cut(&mut self, direction: Direction, bytes: &[u8], captured: usize) {
        self.now_us += 10;
        let packet = Packet {
            at: self.now(),
            direction,
            bytes: &bytes[..captured.min(bytes.len())],
            wire_len: bytes.len() as u32,
            vlan: None,
        };
        self.table.packet(&packet, &mut self.sink);
    }

    pub(crate) fn play_all<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a (Direction, Vec<u8>)>,
    ) {
        for frame in frames {
            self.play(frame);
        }
    }

    /// Lets time pass and ticks.
    pub(crate) fn wait(&mut self, us: u64) -> Option<u64> {
        self.now_us += us;
        self.table.tick(self.now(), &mut self.sink)
    }

    /// Ends the capture; answers the close reports in their order.
    pub(crate) fn finish(&mut self) -> Vec<Report> {
        self.table.finish(self.now(), &mut self.sink);
        self.closed()
    }

    /// Close reports so far.
    pub(crate) fn closed(&self) -> Vec<Report> {
        self.sink
            .reports
            .iter()
            .filter(|report| report.phase == Phase::Close)
            .cloned()
            .collect()
    }

    /// The phases reported so far.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        self.sink
            .reports
            .iter()
            .map(|report| report.phase)
            .collect()
    }
}
