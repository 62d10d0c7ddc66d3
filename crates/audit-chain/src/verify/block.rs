//! Checks a block of lines as far as that is possible without its neighbours.

use super::fault::FaultKind;
use crate::Counts;
use crate::envelope::Envelope;
use crate::line::MAX_LINE;
use crate::merkle::CompactRange;
use sandtrace_event::{
    AuditEvent, CaptureGap, Digest, EventType, GapUnit, Payload, TrailEnd, TrailStart,
};
use std::collections::BTreeMap;

/// What a block says, in a size that does not depend on the block's.
#[derive(Default)]
pub(super) struct Summary {
    /// Good records, and their bytes with line feeds.
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Ends of the chain of good records; `None` where there are none.
    pub(super) ends: Option<Ends>,
    pub(super) counts: Counts,
    /// `capture_gap` counts per unit.
    pub(super) lost: BTreeMap<GapUnit, u64>,
    pub(super) start: Option<TrailStart>,
    pub(super) end: Option<TrailEnd>,
    /// Where the last good record begins.
    pub(super) last_at: u64,
    /// The Merkle tree's part over the good records; `None` where it is not
    /// wanted.
    pub(super) tree: Option<CompactRange>,
    /// What stopped the reading of this block.
    pub(super) stop: Option<Stop>,
}

/// The first and the last good record of a block.
pub(super) struct Ends {
    pub(super) first: Record,
    /// `prev_hash` of the first; empty where it is null.
    pub(super) first_prev: Vec<u8>,
    pub(super) last: Record,
    /// The written `agent_id`, `sandbox_id` and `trace_id` of all of them.
    pub(super) identity: [Vec<u8>; 3],
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

/// The members whose value must not change, in the order of [`Ends::identity`].
pub(super) const IDENTITY: [&str; 3] = ["agent_id", "sandbox_id", "trace_id"];

/// Checks all lines of a block.
pub(super) fn summarise(block: &[u8], with_tree: bool) -> Summary {
    let mut summary = Summary {
        tree: with_tree.then(CompactRange::default),
        ..Summary::default()
    };
    let mut chain = None;
    let mut rest = block;
    while !rest.is_empty() {
        let Some(feed) = memchr::memchr(b'\n', rest) else {
            summary.stop = Some(check_partial(rest));
            break;
        };
        let (line, after) = rest.split_at(feed);
        rest = after.get(1..).unwrap_or_default();
        if let Err(stop) = check_line(line, &mut chain, &mut summary) {
            summary.stop = Some(stop);
            break;
        }
        summary.records += 1;
        summary.last_at = summary.bytes;
        summary.bytes += length(line) + 1;
    }
    summary.ends = chain.map(|chain: Chain<'_>| chain.into_ends());
    summary
}

/// The good lines so far.
struct Chain<'a> {
    first: Envelope<'a>,
    last: Option<Envelope<'a>>,
}

impl<'a> Chain<'a> {
    fn last(&self) -> &Envelope<'a> {
        self.last.as_ref().unwrap_or(&self.first)
    }

    fn into_ends(self) -> Ends {
        Ends {
            first_prev: self.first.prev_hash.to_vec(),
            identity: identity(&self.first).map(<[u8]>::to_vec),
            last: Record::of(self.last()),
            first: Record::of(&self.first),
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
    chain: &mut Option<Chain<'a>>,
    summary: &mut Summary,
) -> Result<(), Stop> {
    if line.len() > MAX_LINE {
        return Err(fault(None, MAX_LINE, FaultKind::TooLong));
    }
    let envelope =
        Envelope::parse(line).map_err(|refusal| fault(None, refusal.at, refusal.kind))?;
    let seq = Some(envelope.seq);
    let hash = check_hash(line, &envelope).map_err(|what| fault(seq, 0, what))?;
    let payload = payload(line, &envelope).map_err(|what| fault(seq, 0, what))?;
    // Links come last, here as between blocks: the answer must not depend on
    // where a block ends.
    if let Some(chain) = chain {
        check_link(chain, &envelope).map_err(|what| fault(seq, 0, what))?;
    }
    summary.note(&envelope, &hash, payload);
    match chain {
        None => {
            *chain = Some(Chain {
                first: envelope,
                last: None,
            });
        }
        Some(chain) => chain.last = Some(envelope),
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
    if last.1 == EventType::TrailEnd {
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

/// Reads the payloads that the report needs; they are few.
fn payload(line: &[u8], envelope: &Envelope<'_>) -> Result<Option<Payload>, FaultKind> {
    match envelope.event_type {
        EventType::TrailStart | EventType::CaptureGap | EventType::TrailEnd => {
            serde_json::from_slice(line)
                .map(|event: AuditEvent| Some(event.payload))
                .map_err(|error| FaultKind::Payload(error.to_string()))
        }
        _ => Ok(None),
    }
}

impl Summary {
    fn note(&mut self, envelope: &Envelope<'_>, hash: &Digest, payload: Option<Payload>) {
        self.counts.add(envelope.event_type, envelope.verdict);
        if let Some(tree) = &mut self.tree {
            // The first good record says where the block stands in the tree;
            // the joint with the block before it shows whether that is so.
            if self.records == 0 {
                *tree = CompactRange::starting_at(envelope.seq - 1);
            }
            tree.push_record(hash);
        }
        match payload {
            Some(Payload::TrailStart(start)) => self.start = Some(start),
            Some(Payload::TrailEnd(end)) => self.end = Some(end),
            Some(Payload::CaptureGap(CaptureGap { unit, count, .. })) => {
                let lost = self.lost.entry(unit).or_default();
                *lost = lost.saturating_add(count.0);
            }
            _ => {}
        }
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
