//! The members of a line, found in one strict pass over its bytes.
//!
//! A canonical line has its fourteen members in one order and no space
//! between them, so the texts between two values are constants. A line that
//! differs from them is not a record, whatever a JSON parser would make of it.

use crate::jcs::{Flaw, NotCanonical, Scanner, check};
use crate::line::{RECORD_HASH, record_hash};
use crate::verify::FaultKind;
use sandtrace_event::{Digest, EventType, MAX_SAFE_INTEGER, VerdictResult};
use std::ops::Range;

/// A line's members; texts are as written, without their quotes.
#[derive(Clone)]
pub(crate) struct Envelope<'a> {
    pub(crate) agent_id: &'a [u8],
    pub(crate) sandbox_id: &'a [u8],
    pub(crate) trace_id: &'a [u8],
    pub(crate) event_type: EventType,
    pub(crate) verdict: Option<VerdictResult>,
    pub(crate) seq: u64,
    /// Text of `prev_hash`, empty where it is null.
    pub(crate) prev_hash: &'a [u8],
    /// Text of `record_hash`.
    pub(crate) record_hash: &'a [u8],
    pub(crate) wall_time: &'a [u8],
    /// Where the `record_hash` member stands, its leading comma included.
    member: Range<usize>,
}

/// Why bytes are not a line.
pub(crate) struct Refusal {
    /// Offset of the first bad byte within the line.
    pub(crate) at: usize,
    pub(crate) kind: FaultKind,
}

impl From<NotCanonical> for Refusal {
    fn from(NotCanonical { at, flaw }: NotCanonical) -> Self {
        Self {
            at,
            kind: FaultKind::NotCanonical(flaw),
        }
    }
}

impl Refusal {
    /// Nothing is wrong but that the line stops before its end.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.kind == FaultKind::NotCanonical(Flaw::End)
    }
}

impl<'a> Envelope<'a> {
    /// Reads a line without its line feed.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let mut walk = Walk {
            scanner: Scanner::new(line),
            member: "agent_id",
        };
        walk.members().map_err(|flaw| walk.refusal(line, flaw))
    }

    /// The hash that the line ought to state.
    pub(crate) fn computed_hash(&self, line: &[u8]) -> Digest {
        let before = line.get(..self.member.start).unwrap_or_default();
        let after = line.get(self.member.end..).unwrap_or_default();
        record_hash(before, after, self.prev_hash)
    }
}

struct Walk<'a> {
    scanner: Scanner<'a>,
    /// The member that is being read, for the error.
    member: &'static str,
}

impl<'a> Walk<'a> {
    fn members(&mut self) -> Result<Envelope<'a>, Flaw> {
        let agent_id = self.text("agent_id", b"{\"agent_id\":")?;
        self.shaped("event_id", b",\"event_id\":", is_event_id)?;
        let event_type = self.word("event_type", b",\"event_type\":", event_type)?;
        self.word("evidence_tier", b",\"evidence_tier\":", evidence_tier)?;
        self.enter("mono_us", b",\"mono_us\":")?;
        self.count()?;
        self.enter("payload", b",\"payload\":")?;
        self.scanner.object(2)?;
        self.enter("prev_hash", b",\"prev_hash\":")?;
        let prev_hash = self.nullable_digest()?.unwrap_or_default();
        let start = self.scanner.at();
        self.enter("record_hash", RECORD_HASH)?;
        let record_hash = self.digest()?;
        let member = start..self.scanner.at();
        let sandbox_id = self.text("sandbox_id", b",\"sandbox_id\":")?;
        self.enter("schema_version", b",\"schema_version\":\"1.0\"")?;
        self.enter("seq", b",\"seq\":")?;
        let seq = self.positive()?;
        let trace_id = self.text("trace_id", b",\"trace_id\":")?;
        self.enter("verdict", b",\"verdict\":")?;
        let verdict = self.verdict()?;
        let wall_time = self.shaped("wall_time", b",\"wall_time\":", is_wall_time)?;
        self.scanner.literal(b"}")?;
        self.scanner.end()?;
        Ok(Envelope {
            agent_id,
            sandbox_id,
            trace_id,
            event_type,
            verdict,
            seq,
            prev_hash,
            record_hash,
            wall_time,
            member,
        })
    }

    #[inline]
    fn enter<const N: usize>(
        &mut self,
        member: &'static str,
        before: &[u8; N],
    ) -> Result<(), Flaw> {
        self.member = member;
        self.scanner.literal(before)
    }

    #[inline]
    fn text<const N: usize>(
        &mut self,
        member: &'static str,
        before: &[u8; N],
    ) -> Result<&'a [u8], Flaw> {
        self.enter(member, before)?;
        self.scanner.string()
    }

    #[inline]
    fn shaped<const N: usize>(
        &mut self,
        member: &'static str,
        before: &[u8; N],
        is_valid: impl Fn(&[u8]) -> bool,
    ) -> Result<&'a [u8], Flaw> {
        let text = self.text(member, before)?;
        if is_valid(text) { Ok(text) } else { Err(WRONG) }
    }

    #[inline]
    fn word<T, const N: usize>(
        &mut self,
        member: &'static str,
        before: &[u8; N],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Flaw> {
        let text = self.text(member, before)?;
        parse(text).ok_or(WRONG)
    }

    fn nullable_digest(&mut self) -> Result<Option<&'a [u8]>, Flaw> {
        if self.scanner.peek()? == b'n' {
            self.scanner.literal(b"null").map(|()| None)
        } else {
            self.digest().map(Some)
        }
    }

    fn digest(&mut self) -> Result<&'a [u8], Flaw> {
        let text = self.scanner.string_of(Digest::TEXT_LEN)?;
        if is_digest(text) {
            Ok(text)
        } else {
            Err(WRONG)
        }
    }

    fn positive(&mut self) -> Result<u64, Flaw> {
        match u64::try_from(self.scanner.integer()?) {
            Ok(value) if value > 0 => Ok(value),
            _ => Err(WRONG),
        }
    }

    /// An integer, or a larger one as a decimal string.
    fn count(&mut self) -> Result<(), Flaw> {
        if self.scanner.peek()? != b'"' {
            let value = self.scanner.integer()?;
            return if value < 0 { Err(WRONG) } else { Ok(()) };
        }
        let text = self.scanner.string()?;
        let value = std::str::from_utf8(text).ok().and_then(|text| {
            let value: u64 = text.parse().ok()?;
            (value.to_string() == text && value > MAX_SAFE_INTEGER).then_some(())
        });
        value.ok_or(WRONG)
    }

    fn verdict(&mut self) -> Result<Option<VerdictResult>, Flaw> {
        if self.scanner.peek()? == b'n' {
            return self.scanner.literal(b"null").map(|()| None);
        }
        self.scanner.literal(b"{\"policy_rule\":")?;
        if self.scanner.peek()? == b'n' {
            self.scanner.literal(b"null")?;
        } else {
            self.scanner.string()?;
        }
        self.scanner.literal(b",\"reason\":")?;
        self.scanner.string()?;
        self.scanner.literal(b",\"result\":")?;
        let result = verdict_result(self.scanner.string()?).ok_or(WRONG)?;
        self.scanner.literal(b"}")?;
        Ok(Some(result))
    }

    /// Tells a line that is no canonical JSON from one with wrong members.
    fn refusal(&self, line: &[u8], flaw: Flaw) -> Refusal {
        let here = self.scanner.locate(flaw);
        match (flaw, check(line)) {
            (Flaw::End, _) => here.into(),
            (_, Err(canonical)) if canonical.flaw != Flaw::End => canonical.into(),
            _ => Refusal {
                at: here.at,
                kind: FaultKind::Member(self.member),
            },
        }
    }
}

/// Stands for a canonical value that does not belong into its member; it
/// never leaves this module, see [`Walk::refusal`].
const WRONG: Flaw = Flaw::Trailing;

fn event_type(text: &[u8]) -> Option<EventType> {
    let mut known = EventType::ALL.iter().copied();
    known.find(|known| known.as_str().as_bytes() == text)
}

fn evidence_tier(text: &[u8]) -> Option<()> {
    matches!(text, b"hypervisor" | b"kernel" | b"guest").then_some(())
}

fn verdict_result(text: &[u8]) -> Option<VerdictResult> {
    match text {
        b"allow" => Some(VerdictResult::Allow),
        b"anomaly" => Some(VerdictResult::Anomaly),
        b"deny" => Some(VerdictResult::Deny),
        _ => None,
    }
}

fn is_event_id(text: &[u8]) -> bool {
    let digit = |&byte: &u8| {
        let is_letter = byte.is_ascii_uppercase() & !matches!(byte, b'I' | b'L' | b'O' | b'U');
        byte.is_ascii_digit() | is_letter
    };
    let digits = text.strip_prefix(b"evt_");
    digits.is_some_and(|digits| digits.len() == 26 && every(digits, digit))
}

fn is_digest(text: &[u8]) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = text.strip_prefix(b"sha256:");
    digits.is_some_and(|digits| digits.len() == 64 && every(digits, digit))
}

/// `2025-03-25T12:00:00.000000000Z` in shape; the calendar is not checked.
fn is_wall_time(text: &[u8]) -> bool {
    const SHAPE: &[u8; 30] = b"0000-00-00T00:00:00.000000000Z";
    let fits =
        |(byte, shape): (&u8, &u8)| (byte == shape) | ((*shape == b'0') & byte.is_ascii_digit());
    text.len() == SHAPE.len() && every(text.iter().zip(SHAPE), fits)
}

/// As `all`, but without an early exit: the compiler can look at many at a time.
fn every<I: IntoIterator>(items: I, holds: impl Fn(I::Item) -> bool) -> bool {
    items.into_iter().fold(true, |all, item| all & holds(item))
}
