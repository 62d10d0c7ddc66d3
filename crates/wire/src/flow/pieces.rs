//! Fragments on their way to a flow.

use crate::findings::Finding;
use crate::flow::carried::{Carried, Segments};
use crate::flow::table::{FlowSink, FlowTable};
use crate::fragments::{Counted, Joined, Outcome};
use crate::frame::{Fragment, Frame};
use crate::tunnel::MAX_DEPTH;

impl FlowTable {
    pub(super) fn fragment(
        &mut self,
        frame: &Frame<'_>,
        fragment: Fragment,
        carried: Carried,
        sink: &mut dyn FlowSink,
    ) {
        let counted = Counted {
            key: frame.key,
            number: 0,
            direction: carried.direction,
            within: carried.within,
            tunnel: carried.tunnel,
            frames: u32::try_from(carried.frames).unwrap_or(u32::MAX),
            wire_bytes: carried.wire_bytes,
            payload_bytes: u64::from(frame.payload_len),
            first: carried.since,
            last: carried.at,
            findings: frame.findings,
        };
        match self.fragments.insert(frame, fragment, counted) {
            Outcome::Waits(number) => {
                if let Some(search) = &mut self.search {
                    search.wait(number);
                }
            }
            Outcome::Joined(joined) => self.joined(&joined, carried, sink),
            Outcome::GivenUp(counted) => self.not_joined(&counted, sink),
        }
        while let Some(counted) = self.fragments.surplus() {
            self.not_joined(&counted, sink);
        }
    }

    fn joined(&mut self, joined: &Joined, carried: Carried, sink: &mut dyn FlowSink) {
        let Joined { counted, bytes, .. } = joined;
        self.resume(counted);
        let vlans = counted.key.vlans;
        let mut frame = Frame::network(joined.ether_type, bytes, joined.wire_len, vlans);
        frame.findings = frame.findings.union(counted.findings);
        if frame.fragment.is_some() {
            // Fragments of a fragment: no IP layer sends those.
            frame.key.later_fragment = true;
            frame.findings.insert(Finding::Fragmented);
        }
        let carried = Carried {
            since: counted.first,
            frames: u64::from(counted.frames),
            wire_bytes: counted.wire_bytes,
            segments: Segments::Known(u64::from(counted.frames)),
            ..carried
        };
        self.datagram(&frame, carried, sink);
    }

    fn resume(&mut self, counted: &Counted) {
        if let Some(search) = &mut self.search {
            search.resume(counted.number);
        }
    }

    /// Counts fragments as what they are: a class of its own.
    pub(super) fn not_joined(&mut self, counted: &Counted, sink: &mut dyn FlowSink) {
        self.resume(counted);
        let mut findings = counted.findings;
        findings.insert(Finding::Fragmented);
        let frame = Frame {
            key: counted.key,
            payload_len: u32::try_from(counted.payload_bytes).unwrap_or(u32::MAX),
            payload: &[],
            tcp: None,
            icmp_type: None,
            fragment: None,
            findings,
        };
        let carried = Carried {
            at: counted.last,
            since: counted.first,
            direction: counted.direction,
            frames: u64::from(counted.frames),
            wire_bytes: counted.wire_bytes,
            segments: Segments::Known(u64::from(counted.frames)),
            within: counted.within,
            tunnel: counted.tunnel,
            depth: MAX_DEPTH,
            bulk: None,
        };
        self.datagram(&frame, carried, sink);
    }
}
