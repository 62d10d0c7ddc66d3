//! Checks a block of lines as far as that is possible without its neighbours.

use super::control::{Context, Control};
use super::fault::FaultKind;
use crate::Counts;
use crate::envelope::Envelope;
use crate::line::MAX_LINE;
use crate::merkle::CompactRange;
use sandtrace_event::{AuditEvent, Digest, EventType, GapUnit, Payload, VerdictResult};
use std::collections::BTreeMap;

/// What a block says, in a size that depends on the number of control
/// records in it and not on that of the others.
#[derive(Default)]
pub(super) struct Summary {
    /// The first good record, by which the block joins the one before.
    pub(super) first: Option<First>,
    /// The good records, in order.
    pub(super) spans: Vec<Span>,
    /// What stopped the reading of this block.
    pub(super) stop: Option<Stop>,
}

/// What the joint between two blocks is checked by.
pub(super) struct First {
    pub(super) record: Record,
    /// `prev_hash`; empty where it is null.
    pub(super) prev_hash: Vec<u8>,
    /// The written `agent_id`, `sandbox_id` and `trace_id`, which are those of
    /// all records of the block.
    pub(super) identity: [Vec<u8>; 3],
}

/// Records in a row, and the one after them that only the fold can judge.
#[derive(Default)]
pub(super) struct Span {
    pub(super) run: Run,
    pub(super) control: Option<ControlRecord>,
}

/// Records that say nothing about the trail itself.
#[derive(Default)]
pub(super) struct Run {
    pub(super) records: u64,
    /// With line feeds.
    pub(super) bytes: u64,
    pub(super) counts: Counts,
    /// `capture_gap` counts per unit.
    pub(super) lost: BTreeMap<GapUnit, u64>,
    /// Their part of the Merkle tree.
    pub(super) tree: CompactRange,
    pub(super) last: Option<Record>,
}

/// A record that speaks of the trail.
pub(super) struct ControlRecord {
    pub(super) record: Record,
    pub(super) verdict: Option<VerdictResult>,
    pub(super) digest: Digest,
    /// With its line feed.
    pub(super) bytes: u64,
    pub(super) control: Control,
}

/// What is kept of a record.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) event_type: EventType,
    pub(super) hash: Vec<u8>,
    pub(super) wall_time: Vec<u8>,
}

/// Why the lines after the good ones are not looked at.
pub(super) enum Stop {
    /// The next line is bad; `at` counts from its start.
    Fault {
        seq: Option<u64>,
        at: usize,
        what: FaultKind,
    },
    /// The trail stops inside of the next line.
    CutOff { bytes: u64 },
}

/// The members whose value must not change, in the order of [`First::identity`].
const IDENTITY: [&str; 3] = ["agent_id", "sandbox_id", "trace_id"];

/// Checks all lines of a block.
pub(super) fn summarise(block: &[u8], context: &Context) -> Summary {
    let mut summary = Summary::default();
    let mut chain = None;
    let mut rest = block;
    while !rest.is_empty() {
        let Some(feed) = memchr::memchr(b'\n', rest) else {
            summary.stop = Some(check_partial(rest));
            break;
        };
        let (line, after) = rest.split_at(feed);
        rest = after.get(1..).unwrap_or_default();
        if let Err(stop) = check_line(line, context, &mut chain, &mut summary) {
            summary.stop = Some(stop);
            break;
        }
    }
    if let Some(mut chain) = chain {
        summary.end_run(&mut chain, 0);
        summary.first = Some(chain.into_first());
    }
    summary
}

/// The good lines so far.
struct Chain<'a> {
    first: Envelope<'a>,
    last: Option<Envelope<'a>>,
    /// Records since the last control record.
    run: Run,
}

impl<'a> Chain<'a> {
    fn new(first: Envelope<'a>) -> Self {
        let run = Run::starting_at(first.seq);
        Self {
            first,
            last: None,
            run,
        }
    }

    fn last(&self) -> &Envelope<'a> {
        self.last.as_ref().unwrap_or(&self.first)
    }

    /// The records since the last control record; others follow from `next_seq`.
    fn take_run(&mut self, next_seq: u64) -> Run {
        let last = (self.run.records > 0).then(|| Record::of(self.last()));
        let run = std::mem::replace(&mut self.run, Run::starting_at(next_seq));
        Run { last, ..run }
    }

    fn into_first(self) -> First {
        First {
            prev_hash: self.first.prev_hash.to_vec(),
            identity: identity(&self.first).map(<[u8]>::to_vec),
            record: Record::of(&self.first),
        }
    }
}

impl Run {
    fn starting_at(seq: u64) -> Self {
        Self {
            tree: CompactRange::starting_at(seq.saturating_sub(1)),
            ..Self::default()
        }
    }

    fn add(&mut self, line: &[u8], envelope: &Envelope<'_>, hash: &Digest) {
        self.records += 1;
        self.bytes += length(line) + 1;
        self.counts.add(envelope.event_type, envelope.verdict);
        self.tree.push_record(hash);
    }
}

impl Summary {
    /// Closes a run that no control record follows.
    fn end_run(&mut self, chain: &mut Chain<'_>, next_seq: u64) {
        if chain.run.records > 0 {
            let run = chain.take_run(next_seq);
            self.spans.push(Span { run, control: None });
        }
    }
}

impl Record {
    fn of(envelope: &Envelope<'_>) -> Self {
        Self {
            seq: envelope.seq,
            event_type: envelope.event_type,
            hash: envelope.record_hash.to_vec(),
            wall_time: envelope.wall_time.to_vec(),
        }
    }
}

fn check_line<'a>(
    line: &'a [u8],
    context: &Context,
    chain: &mut Option<Chain<'a>>,
    summary: &mut Summary,
) -> Result<(), Stop> {
    if line.len() > MAX_LINE {
        return Err(fault(None, MAX_LINE, FaultKind::TooLong));
    }
    let envelope =
        Envelope::parse(line).map_err(|refusal| fault(None, refusal.at, refusal.kind))?;
    let seq = envelope.seq;
    let hash = check_hash(line, &envelope).map_err(|what| fault(Some(seq), 0, what))?;
    let payload = payload(line, &envelope).map_err(|what| fault(Some(seq), 0, what))?;
    // Links come last, here as between blocks: the answer must not depend on
    // where a block ends.
    if let Some(chain) = chain {
        check_link(chain, &envelope).map_err(|what| fault(Some(seq), 0, what))?;
    }
    let chain = chain.get_or_insert_with(|| Chain::new(envelope.clone()));
    if let Some(Payload::CaptureGap(gap)) = &payload {
        let lost = chain.run.lost.entry(gap.unit).or_default();
        *lost = lost.saturating_add(gap.count.0);
    }
    match payload.and_then(|payload| Control::read(payload, context)) {
        Some(control) => {
            let control = Some(ControlRecord {
                record: Record::of(&envelope),
                verdict: envelope.verdict,
                digest: hash,
                bytes: length(line) + 1,
                control,
            });
            let run = chain.take_run(seq.saturating_add(1));
            summary.spans.push(Span { run, control });
        }
        None => chain.run.add(line, &envelope, &hash),
    }
    chain.last = Some(envelope);
    if context.root_at == Some(seq) {
        summary.end_run(chain, seq.saturating_add(1));
    }
    Ok(())
}

fn check_hash(line: &[u8], envelope: &Envelope<'_>) -> Result<Digest, FaultKind> {
    let computed = envelope.computed_hash(line);
    if computed.to_text() == envelope.record_hash {
        return Ok(computed);
    }
    Err(FaultKind::RecordHash {
        stated: String::from_utf8_lossy(envelope.record_hash).into_owned(),
        computed,
    })
}

fn check_link(chain: &Chain<'_>, next: &Envelope<'_>) -> Result<(), FaultKind> {
    let last = chain.last();
    follows(
        (last.seq, last.event_type, last.record_hash),
        (next.seq, next.event_type, next.prev_hash),
    )?;
    same_identity(identity(&chain.first), identity(next))
}

/// Whether a record with (seq, type, `prev_hash`) may follow one with (seq,
/// type, `record_hash`).
pub(super) fn follows(
    last: (u64, EventType, &[u8]),
    next: (u64, EventType, &[u8]),
) -> Result<(), FaultKind> {
    let expected = last.0.saturating_add(1);
    if last.1 == EventType::TrailEnd && next.1 != EventType::Checkpoint {
        Err(FaultKind::AfterEnd)
    } else if next.0 != expected {
        Err(FaultKind::Seq {
            expected,
            found: next.0,
        })
    } else if next.2 != last.2 {
        Err(FaultKind::PrevHash)
    } else if next.1 == EventType::TrailStart {
        Err(FaultKind::SecondStart)
    } else if last.1 == EventType::SegmentEnd && next.1 != EventType::SegmentStart {
        Err(FaultKind::Segment(
            "only a segment_start follows a segment_end",
        ))
    } else {
        Ok(())
    }
}

pub(super) fn same_identity(first: [&[u8]; 3], next: [&[u8]; 3]) -> Result<(), FaultKind> {
    let differs = first.iter().zip(next).map(|(first, next)| *first != next);
    match IDENTITY.iter().zip(differs).find(|(_, differs)| *differs) {
        Some((member, _)) => Err(FaultKind::Identity(member)),
        None => Ok(()),
    }
}

fn identity<'a>(envelope: &Envelope<'a>) -> [&'a [u8]; 3] {
    [envelope.agent_id, envelope.sandbox_id, envelope.trace_id]
}

/// Reads the payloads that the verifier itself needs; they are few.
fn payload(line: &[u8], envelope: &Envelope<'_>) -> Result<Option<Payload>, FaultKind> {
    match envelope.event_type {
        EventType::TrailStart
        | EventType::SessionStart
        | EventType::CaptureGap
        | EventType::Checkpoint
        | EventType::Cosignature
        | EventType::KeyRotate
        | EventType::SegmentEnd
        | EventType::SegmentStart
        | EventType::TrailEnd => serde_json::from_slice(line)
            .map(|event: AuditEvent| Some(event.payload))
            .map_err(|error| FaultKind::Payload(error.to_string())),
        _ => Ok(None),
    }
}

fn check_partial(bytes: &[u8]) -> Stop {
    if bytes.len() > MAX_LINE {
        return fault(None, MAX_LINE, FaultKind::TooLong);
    }
    match Envelope::parse(bytes) {
        // All that is missing is the line feed.
        Ok(_) => Stop::CutOff {
            bytes: length(bytes),
        },
        Err(refusal) if refusal.is_cut_off() => Stop::CutOff {
            bytes: length(bytes),
        },
        Err(refusal) => fault(None, refusal.at, refusal.kind),
    }
}

fn fault(seq: Option<u64>, at: usize, what: FaultKind) -> Stop {
    Stop::Fault { seq, at, what }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The digest that a checked text spells.
pub(super) fn digest(text: &[u8]) -> Option<Digest> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
