//! Too many questions to report each: those that are alike are counted instead.

use crate::dns::DnsTransaction;
use crate::flow::aggregate::Openings;
use crate::flow::table::{FlowSink, FlowTable};
use crate::packet::Moment;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

/// Questions that are counted together, and how many may still be reported.
#[derive(Debug)]
pub(crate) struct Folded {
    openings: Openings,
    /// What they have in common, and how many there are.
    sums: HashMap<DnsTransaction, u64>,
    /// When they are reported, while there are any.
    due_us: Option<u64>,
}

/// Sums by name. Beyond those the name is left out, `.` stands for it.
const MAX_BY_NAME: usize = 256;
/// Sums in all but those of any resolver, of which there are few.
const MAX_SUMS: usize = 512;
/// How long questions are counted before their sums are reported.
const INTERVAL_US: u64 = 1_000_000;

impl Folded {
    pub(crate) fn new(burst: u32) -> Self {
        Self {
            openings: Openings::new(burst),
            sums: HashMap::new(),
            due_us: None,
        }
    }

    pub(crate) const fn due_us(&self) -> Option<u64> {
        self.due_us
    }

    /// What decides about a question stays, so that its sum is judged as it would be.
    fn fold(&mut self, query: &DnsTransaction, now_us: u64) {
        let mut alike = DnsTransaction {
            answers: Vec::new(),
            latency_us: None,
            left_out: 0,
            ..query.clone()
        };
        if self.has_no_room(&alike, MAX_BY_NAME) {
            alike.name = ".".to_owned();
            alike.qtype = "ANY".to_owned();
            alike.rcode = None;
        }
        if self.has_no_room(&alike, MAX_SUMS) {
            alike.resolver = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            alike.resolver_port = 0;
            alike.resolver_accepted = false;
        }
        *self.sums.entry(alike).or_default() += 1;
        self.due_us
            .get_or_insert(now_us.saturating_add(INTERVAL_US));
    }

    fn has_no_room(&self, alike: &DnsTransaction, most: usize) -> bool {
        self.sums.len() >= most && !self.sums.contains_key(alike)
    }
}

impl FlowTable {
    /// Reports a question, or counts it with those that are like it.
    pub(super) fn report_question(
        &mut self,
        at: Moment,
        query: &DnsTransaction,
        sink: &mut dyn FlowSink,
    ) {
        let (burst, per_second) = (self.config.dns_burst, self.config.opens_per_second);
        if self.folded.openings.take(at.mono_us, burst, per_second) {
            sink.dns(at, query);
        } else {
            self.folded.fold(query, at.mono_us);
        }
    }

    /// Reports what was counted together, if it is time.
    pub(super) fn tick_folded(&mut self, now: Moment, sink: &mut dyn FlowSink) {
        if self.folded.due_us.is_some_and(|due| due <= now.mono_us) {
            self.end_folded(now, sink);
        }
    }

    pub(super) fn end_folded(&mut self, now: Moment, sink: &mut dyn FlowSink) {
        self.folded.due_us = None;
        let sums = std::mem::take(&mut self.folded.sums).into_iter();
        let mut sums: Vec<_> = sums
            .map(|(alike, questions)| DnsTransaction {
                questions: Some(questions),
                ..alike
            })
            .collect();
        // The same trail from the same capture.
        sums.sort_unstable();
        for sum in &sums {
            sink.dns(now, sum);
        }
    }
}
