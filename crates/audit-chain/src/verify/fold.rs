//! Joins the summaries of blocks in the order of the trail.

use super::block::{Ends, Record, Stop, Summary, digest, follows, same_identity};
use super::{Fault, FaultKind, Identity, Incomplete, Mark, Outcome, Report};
use crate::Counts;
use crate::merkle::CompactRange;
use sandtrace_event::{EventType, GapUnit, TrailEnd, TrailStart};
use std::collections::BTreeMap;

/// The trail up to here.
#[derive(Default)]
pub(super) struct Fold {
    records: u64,
    bytes: u64,
    counts: Counts,
    lost: BTreeMap<GapUnit, u64>,
    start: Option<TrailStart>,
    end: Option<TrailEnd>,
    /// First and last record, and the identity of all.
    ends: Option<Ends>,
    fault: Option<Fault>,
    partial_bytes: u64,
    tree: CompactRange,
}

impl Fold {
    /// Adds the next block; false where the rest of the trail does not matter.
    pub(super) fn absorb(&mut self, mut summary: Summary) -> bool {
        // Other threads may still deliver what lies behind a fault.
        if self.has_fault() {
            return false;
        }
        let stop = summary.stop.take();
        if let Err(fault) = self.join(summary) {
            self.fault = Some(fault);
            return false;
        }
        match stop {
            None => return true,
            Some(Stop::Fault { seq, at, what }) => {
                let at = u64::try_from(at).unwrap_or(u64::MAX);
                self.fault = Some(self.next_line(seq, at, what));
            }
            Some(Stop::CutOff { .. }) if self.has_ended() => {
                self.fault = Some(self.next_line(None, 0, FaultKind::AfterEnd));
            }
            Some(Stop::CutOff { bytes }) => self.partial_bytes = bytes,
        }
        false
    }

    fn join(&mut self, summary: Summary) -> Result<(), Fault> {
        let Some(ends) = summary.ends else {
            return Ok(());
        };
        self.check_joint(&ends)
            .map_err(|what| self.next_line(Some(ends.first.seq), 0, what))?;
        self.check_totals(&summary.counts, summary.end.as_ref())
            .map_err(|what| Fault {
                seq: Some(ends.last.seq),
                byte_offset: self.bytes + summary.last_at,
                line: self.records + summary.records,
                what,
            })?;
        if let Some(tree) = &summary.tree {
            // Cannot fail behind the check of the joint.
            self.tree
                .append(tree)
                .map_err(|gap| self.next_line(Some(ends.first.seq), 0, gap.into()))?;
        }
        self.records += summary.records;
        self.bytes += summary.bytes;
        self.counts.add_all(&summary.counts);
        for (unit, count) in summary.lost {
            let lost = self.lost.entry(unit).or_default();
            *lost = lost.saturating_add(count);
        }
        self.start = self.start.take().or(summary.start);
        self.end = summary.end;
        match &mut self.ends {
            None => self.ends = Some(ends),
            Some(own) => own.last = ends.last,
        }
        Ok(())
    }

    fn check_joint(&self, next: &Ends) -> Result<(), FaultKind> {
        let first = &next.first;
        let Some(own) = &self.ends else {
            return check_first(first, &next.first_prev);
        };
        let last = &own.last;
        follows(
            (last.seq, last.event_type, &last.hash),
            (first.seq, first.event_type, &next.first_prev),
        )?;
        let [own, next] = [own, next].map(|ends| ends.identity.each_ref().map(Vec::as_slice));
        same_identity(own, next)
    }

    /// `counts` are those of the block, which ends with the `trail_end`.
    fn check_totals(&self, counts: &Counts, end: Option<&TrailEnd>) -> Result<(), FaultKind> {
        let Some(end) = end else {
            return Ok(());
        };
        let mut total = self.counts.clone();
        total.add_all(counts);
        total.remove_end();
        let same = total.matches(&end.events, &end.verdicts);
        if same { Ok(()) } else { Err(FaultKind::Totals) }
    }

    fn next_line(&self, seq: Option<u64>, at: u64, what: FaultKind) -> Fault {
        Fault {
            seq,
            byte_offset: self.bytes.saturating_add(at),
            line: self.records + 1,
            what,
        }
    }

    pub(super) fn has_fault(&self) -> bool {
        self.fault.is_some()
    }

    fn has_ended(&self) -> bool {
        let last = self.ends.as_ref().map(|ends| ends.last.event_type);
        last == Some(EventType::TrailEnd)
    }

    /// The answer, once there are no more blocks.
    pub(super) fn finish(mut self, live: bool) -> Report {
        let outcome = self.outcome(live);
        let ends = self.ends;
        Report {
            outcome,
            records: self.records,
            bytes: self.bytes,
            partial_bytes: self.partial_bytes,
            identity: ends.as_ref().and_then(identity),
            first: ends.as_ref().and_then(|ends| mark(&ends.first)),
            last: ends.as_ref().and_then(|ends| mark(&ends.last)),
            counts: self.counts,
            lost: self.lost,
            start: self.start,
            end: self.end,
            tree: self.tree,
        }
    }

    fn outcome(&mut self, live: bool) -> Outcome {
        if let Some(fault) = self.fault.take() {
            return if fault.what.is_malformed() {
                Outcome::Malformed(fault)
            } else {
                Outcome::Tampered(fault)
            };
        }
        let sealed = self.has_ended();
        match (self.records, self.partial_bytes) {
            (0, 0) => Outcome::Empty,
            (1.., 0) if sealed => Outcome::Intact { sealed },
            (1.., _) if live => Outcome::Intact { sealed },
            (_, 0) => Outcome::Incomplete(Incomplete::NoEnd),
            (_, bytes) => Outcome::Incomplete(Incomplete::CutOff {
                byte_offset: self.bytes,
                bytes,
                line: self.records + 1,
            }),
        }
    }
}

fn check_first(first: &Record, prev_hash: &[u8]) -> Result<(), FaultKind> {
    if first.seq != 1 {
        Err(FaultKind::Seq {
            expected: 1,
            found: first.seq,
        })
    } else if !prev_hash.is_empty() {
        Err(FaultKind::PrevHash)
    } else if first.event_type != EventType::TrailStart {
        Err(FaultKind::NoStart)
    } else {
        Ok(())
    }
}

fn identity(ends: &Ends) -> Option<Identity> {
    let [agent_id, sandbox_id, trace_id] = ends.identity.each_ref().map(|text| unescape(text));
    Some(Identity {
        agent_id: agent_id?,
        sandbox_id: sandbox_id?,
        trace_id: trace_id?,
    })
}

fn unescape(written: &[u8]) -> Option<String> {
    serde_json::from_slice(&[b"\"", written, b"\""].concat()).ok()
}

fn mark(record: &Record) -> Option<Mark> {
    let wall_time = std::str::from_utf8(&record.wall_time).ok()?;
    Some(Mark {
        seq: record.seq,
        record_hash: digest(&record.hash)?,
        wall_time: wall_time.parse().ok(),
    })
}
