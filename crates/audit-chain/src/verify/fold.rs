//! Joins the summaries of blocks in the order of the trail.

use super::block::{
    ControlRecord, First, Record, Run, Span, Stop, Summary, digest, follows, same_identity,
};
use super::control::Control;
use super::report::StateAt;
use super::segments::Segments;
use super::signed::{Place, Signing, check_prior};
use super::{Fault, FaultKind, Identity, Incomplete, Mark, Outcome, Report};
use crate::Counts;
use crate::merkle::{CompactRange, empty_root};
use crate::note::VerifierKey;
use sandtrace_event::{Digest, EventType, GapUnit, SessionStart, TrailEnd, TrailStart};
use std::collections::BTreeMap;

/// The trail up to here.
#[derive(Default)]
pub(super) struct Fold {
    /// Keys of hosts that are known from elsewhere.
    pins: Vec<VerifierKey>,
    root_at: Option<u64>,

    records: u64,
    bytes: u64,
    counts: Counts,
    lost: BTreeMap<GapUnit, u64>,
    tree: CompactRange,
    start: Option<TrailStart>,
    end: Option<TrailEnd>,
    /// A checkpoint over the `trail_end` is there.
    is_sealed: bool,
    sessions: u64,
    segments: Segments,
    /// `None` where the trail is not signed.
    signing: Option<Signing>,
    first: Option<First>,
    last: Option<Record>,
    at: Option<StateAt>,
    fault: Option<Fault>,
    partial_bytes: u64,
}

impl Fold {
    pub(super) fn new(pins: Vec<VerifierKey>, root_at: Option<u64>) -> Self {
        Self {
            pins,
            root_at,
            sessions: 1,
            ..Self::default()
        }
    }

    /// Adds the next block; false where the rest of the trail does not matter.
    pub(super) fn absorb(&mut self, summary: Summary) -> bool {
        // Other threads may still deliver what lies behind a fault.
        if self.has_fault() {
            return false;
        }
        if let Err(fault) = self.join(summary.first, summary.spans) {
            self.fault = Some(fault);
            return false;
        }
        match summary.stop {
            None => return true,
            Some(Stop::Fault { seq, at, what }) => {
                let at = u64::try_from(at).unwrap_or(u64::MAX);
                self.fault = Some(self.next_line(seq, at, what));
            }
            // A cosignature may still come; nothing else may.
            Some(Stop::CutOff { .. }) if self.end.is_some() && self.signing.is_none() => {
                self.fault = Some(self.next_line(None, 0, FaultKind::AfterEnd));
            }
            Some(Stop::CutOff { bytes }) => self.partial_bytes = bytes,
        }
        false
    }

    fn join(&mut self, first: Option<First>, spans: Vec<Span>) -> Result<(), Fault> {
        let Some(first) = first else {
            return Ok(());
        };
        self.check_joint(&first)
            .map_err(|what| self.next_line(Some(first.record.seq), 0, what))?;
        self.first.get_or_insert(first);
        for Span { run, control } in spans {
            self.add_run(run)?;
            if let Some(control) = control {
                self.add_control(control)?;
            }
            self.look_around();
        }
        Ok(())
    }

    fn check_joint(&self, next: &First) -> Result<(), FaultKind> {
        let record = &next.record;
        let (Some(own), Some(last)) = (&self.first, &self.last) else {
            return check_first(record, &next.prev_hash);
        };
        follows(
            (last.seq, last.event_type, &last.hash),
            (record.seq, record.event_type, &next.prev_hash),
        )?;
        let [own, next] = [own, next].map(|first| first.identity.each_ref().map(Vec::as_slice));
        same_identity(own, next)
    }

    fn add_run(&mut self, run: Run) -> Result<(), Fault> {
        let Some(last) = run.last else {
            return Ok(());
        };
        if self.is_sealed {
            let seq = self.records.saturating_add(1);
            return Err(self.next_line(Some(seq), 0, FaultKind::AfterEnd));
        }
        self.grow(&run.tree, self.records.saturating_add(1))?;
        self.records += run.records;
        self.bytes += run.bytes;
        self.counts.add_all(&run.counts);
        for (unit, count) in run.lost {
            let lost = self.lost.entry(unit).or_default();
            *lost = lost.saturating_add(count);
        }
        if let Some(signing) = &mut self.signing {
            signing.unattested(run.records);
        }
        self.last = Some(last);
        Ok(())
    }

    /// Cannot fail behind the check of the joint.
    fn grow(&mut self, part: &CompactRange, seq: u64) -> Result<(), Fault> {
        let grown = self.tree.append(part);
        grown.map_err(|gap| {
            let what = FaultKind::Seq {
                expected: gap.end.saturating_add(1),
                found: gap.begin.saturating_add(1),
            };
            self.next_line(Some(seq), 0, what)
        })
    }

    fn add_control(&mut self, next: ControlRecord) -> Result<(), Fault> {
        let ControlRecord {
            record,
            verdict,
            digest,
            bytes,
            control,
        } = next;
        let is_event = matches!(
            control,
            Control::Start(_) | Control::Session(_) | Control::End(_)
        );
        self.check_control(control, &record)
            .map_err(|what| self.next_line(Some(record.seq), 0, what))?;
        self.tree.push_record(&digest);
        self.records += 1;
        self.bytes += bytes;
        self.counts.add(record.event_type, verdict);
        if let Some(signing) = &mut self.signing
            && is_event
        {
            signing.unattested(1);
        }
        self.last = Some(record);
        Ok(())
    }

    fn check_control(&mut self, control: Control, record: &Record) -> Result<(), FaultKind> {
        if self.is_sealed && !matches!(control, Control::Cosignature(_)) {
            return Err(FaultKind::AfterEnd);
        }
        let place = Place {
            records: self.records,
            bytes: self.bytes,
            tree: &self.tree,
            before: self.last.as_ref().map(|last| last.event_type),
            record,
        };
        match control {
            Control::Start(start) => {
                self.signing = Signing::start(&start, &self.pins)?;
                self.start = Some(*start);
            }
            Control::Session(session) => {
                let SessionStart {
                    prior_size,
                    prior_hash,
                    signed_size,
                    ..
                } = &*session;
                check_prior(
                    *prior_size,
                    prior_hash,
                    *signed_size,
                    &place,
                    self.last.as_ref(),
                )?;
                self.sessions += 1;
                match (&mut self.signing, &session.key) {
                    (Some(signing), key) => signing.session(key.as_ref(), &self.pins)?,
                    (None, None) => {}
                    (None, Some(_)) => return Err(not_signed()),
                }
            }
            Control::Checkpoint(signed) => {
                let signing = self.signing.as_mut().ok_or_else(not_signed)?;
                signing.checkpoint(signed, &place)?;
                self.is_sealed = place.before == Some(EventType::TrailEnd);
            }
            Control::Cosignature(cosigned) => {
                let signing = self.signing.as_mut().ok_or_else(not_signed)?;
                signing.cosignature(cosigned.map_err(FaultKind::Cosignature)?)?;
            }
            Control::Rotate(rotate) => {
                let signing = self.signing.as_mut().ok_or_else(not_signed)?;
                signing.rotate(&rotate, place.before)?;
            }
            Control::SegmentEnd(end) => self.segments.end(&end, &place)?,
            Control::SegmentStart(start) => {
                let origin = self.start.as_ref().map(|start| start.origin.as_str());
                self.segments.start(&start, origin, &place)?;
            }
            Control::End(end) => {
                if !self.counts.matches(&end.events, &end.verdicts) {
                    return Err(FaultKind::Totals);
                }
                self.end = Some(*end);
            }
        }
        Ok(())
    }

    /// Notes the state where it was asked for.
    fn look_around(&mut self) {
        if self.root_at == Some(self.records) {
            self.at = self.tree.root().map(|root| self.state(root));
        }
    }

    fn state(&self, root: Digest) -> StateAt {
        StateAt {
            size: self.records,
            root,
            key: self.signing.as_ref().map(|signing| signing.key().clone()),
        }
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

    /// The answer, once there are no more blocks.
    pub(super) fn finish(mut self, live: bool) -> Report {
        if self.root_at == Some(0) {
            self.at = Some(StateAt {
                size: 0,
                root: empty_root(),
                key: None,
            });
        }
        Report {
            outcome: self.outcome(live),
            records: self.records,
            bytes: self.bytes,
            partial_bytes: self.partial_bytes,
            identity: self.first.as_ref().and_then(identity),
            first: self.first.as_ref().and_then(|first| mark(&first.record)),
            last: self.last.as_ref().and_then(mark),
            counts: self.counts,
            lost: self.lost,
            start: self.start,
            end: self.end,
            sessions: self.sessions,
            segments: self.segments.count(),
            tree: self.tree,
            signatures: self.signing.map(Signing::finish),
            at: self.at,
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
        let sealed = self.end.is_some() && (self.is_sealed || self.signing.is_none());
        let last = self.last.as_ref().map(|last| last.event_type);
        match (self.records, self.partial_bytes) {
            (0, 0) => Outcome::Empty,
            (1.., 0) if sealed => Outcome::Intact { sealed },
            (1.., _) if live => Outcome::Intact { sealed },
            (_, 0) => Outcome::Incomplete(match last {
                Some(EventType::TrailEnd) => Incomplete::NoSeal,
                Some(EventType::SegmentEnd) => Incomplete::NoSegment,
                _ => Incomplete::NoEnd,
            }),
            (_, bytes) => Outcome::Incomplete(Incomplete::CutOff {
                byte_offset: self.bytes,
                bytes,
                line: self.records + 1,
            }),
        }
    }
}

fn not_signed() -> FaultKind {
    FaultKind::Unsigned("a record of a signed trail in one whose trail_start has no key")
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

fn identity(first: &First) -> Option<Identity> {
    let [agent_id, sandbox_id, trace_id] = first.identity.each_ref().map(|text| unescape(text));
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
