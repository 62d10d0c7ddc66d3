//! What one direction's sequence numbers say was sent, seen and missed.

/// One direction of a connection in stream offsets: offset 0 is the first
/// byte after the SYN, or the first byte seen where there was no SYN.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    /// Sequence number of the byte at `end`; absent before the first segment.
    next: Option<u32>,
    /// Offset after the last byte seen.
    end: u64,
    /// Offset up to which the other side has acknowledged.
    acked: u64,
    /// Offset of the FIN, once seen.
    fin: Option<u64>,
    /// Ranges below `end` that were not seen, in order.
    gaps: Vec<Gap>,
    /// Bytes of gaps that are no longer followed.
    forgotten: u64,
    /// Below this offset a byte counts as new, as gaps there were forgotten.
    loose_below: u64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    start: u64,
    end: u64,
}

/// What a segment's payload was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Offset of its first byte in the stream; absent where it has none there.
    pub(crate) offset: Option<u64>,
    /// Bytes at its begin that lie before the stream's start: a receiver takes
    /// what is behind them.
    pub(crate) before: u32,
    /// Bytes not seen before.
    pub(crate) new: u32,
    /// Bytes under sequence numbers seen before.
    pub(crate) resent: u32,
}

impl Seen {
    /// The part of the payload that lies in the stream, and its length on the
    /// wire, of a payload of `len` bytes of which `bytes` were captured.
    pub(crate) fn in_stream(self, bytes: &[u8], len: u32) -> (&[u8], u32) {
        let before = usize::try_from(self.before).unwrap_or(usize::MAX);
        let bytes = bytes.get(before..).unwrap_or_default();
        (bytes, len.saturating_sub(self.before))
    }
}

/// Gaps followed per direction. Captures on a tap have none or very few.
const MAX_GAPS: usize = 16;
/// The largest window there is (RFC 7323): nobody acknowledges beyond it.
const MAX_WINDOW: u64 = 1 << 30;

impl Sequence {
    /// Begins the stream at a SYN, again if nothing was sent since the last one.
    pub(crate) fn syn(&mut self, seq: u32) {
        if self.next.is_none() || self.end == 0 {
            self.next = Some(seq.wrapping_add(1));
        }
    }

    /// Whether a SYN with this number begins another stream than this one, of
    /// which something is known.
    pub(crate) fn is_restarted_by(&self, seq: u32) -> bool {
        self.next
            .is_some_and(|_| seq.wrapping_add(1) != self.start())
    }

    /// Whether no payload was seen.
    pub(crate) const fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Whether this acknowledges the SYN, and at most what was seen behind it.
    pub(crate) fn is_answered_by(&self, ack: u32) -> bool {
        self.next.is_some() && u64::from(ack.wrapping_sub(self.start())) <= self.end
    }

    /// The number of the byte at offset 0.
    fn start(&self) -> u32 {
        let low = u32::try_from(self.end & u64::from(u32::MAX)).unwrap_or_default();
        self.next.unwrap_or_default().wrapping_sub(low)
    }

    /// Takes in the payload of a segment, without its SYN.
    pub(crate) fn payload(&mut self, seq: u32, len: u32) -> Seen {
        let next = *self.next.get_or_insert(seq);
        if len == 0 {
            return Seen::default();
        }
        // Offsets are compared in a ring of 2^32, the nearer way round.
        let step = i64::from(seq.wrapping_sub(next).cast_signed());
        match self.end.checked_add_signed(step) {
            Some(start) => self.within(start, seq, len),
            None => self.before_start(step.unsigned_abs().saturating_sub(self.end), seq, len),
        }
    }

    /// A segment whose first `before` bytes lie before the start. These were
    /// never seen, so they are new.
    fn before_start(&mut self, before: u64, seq: u32, len: u32) -> Seen {
        let before = u32::try_from(before).unwrap_or(len).min(len);
        if before == len {
            return Seen {
                before,
                new: len,
                ..Seen::default()
            };
        }
        let seen = self.within(0, seq.wrapping_add(before), len - before);
        Seen {
            before,
            new: before + seen.new,
            ..seen
        }
    }

    fn within(&mut self, start: u64, seq: u32, len: u32) -> Seen {
        let end = start.saturating_add(u64::from(len));
        let mut new = self.fill(start, end.min(self.end));
        if end > self.end {
            if start > self.end {
                self.open_gap(start);
            }
            new += end - start.max(self.end);
            self.end = end;
            self.next = Some(seq.wrapping_add(len));
        }
        let new = u32::try_from(new).unwrap_or(len).min(len);
        Seen {
            offset: Some(start),
            before: 0,
            new,
            resent: len - new,
        }
    }

    /// Takes in a FIN that stands after `len` payload bytes from `seq` on.
    pub(crate) fn fin(&mut self, seq: u32, len: u32) {
        let next = *self.next.get_or_insert(seq);
        let delta = seq.wrapping_add(len).wrapping_sub(next).cast_signed();
        if self.fin.is_none() {
            self.fin = self.end.checked_add_signed(i64::from(delta));
        }
    }

    /// Takes in what the other side acknowledges.
    pub(crate) fn ack(&mut self, ack: u32) {
        let Some(next) = self.next else { return };
        let delta = ack.wrapping_sub(next).cast_signed();
        let Some(acked) = self.end.checked_add_signed(i64::from(delta)) else {
            return;
        };
        if acked > self.acked && acked <= self.end.saturating_add(MAX_WINDOW) {
            self.acked = acked;
        }
    }

    /// Offset up to which the other side has acknowledged.
    pub(crate) const fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether an acknowledgement covers everything seen.
    pub(crate) fn covers(&self, ack: u32) -> bool {
        self.next
            .is_none_or(|next| ack.wrapping_sub(next).cast_signed() >= 0)
    }

    /// Bytes that were acknowledged but never seen.
    pub(crate) fn missed(&self) -> u64 {
        let in_gaps: u64 = self
            .gaps
            .iter()
            .map(|gap| gap.end.min(self.acked).saturating_sub(gap.start))
            .sum();
        // A FIN takes one number and may itself have been missed.
        let last = self.fin.unwrap_or(u64::MAX).max(self.end);
        let after_end = match self.acked.min(last).saturating_sub(self.end) {
            1 => 0,
            more => more,
        };
        self.forgotten + in_gaps + after_end
    }

    fn open_gap(&mut self, until: u64) {
        self.gaps.push(Gap {
            start: self.end,
            end: until,
        });
        self.trim();
    }

    /// How many bytes of a range below `end` are new; they no longer are.
    fn fill(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let loose = end.min(self.loose_below).saturating_sub(start);
        self.forgotten = self.forgotten.saturating_sub(loose);
        if self.gaps.is_empty() {
            return loose;
        }
        let mut filled = 0;
        let mut left = Vec::with_capacity(self.gaps.len() + 1);
        for gap in &self.gaps {
            let (from, to) = (start.max(gap.start), end.min(gap.end));
            if from >= to {
                left.push(*gap);
                continue;
            }
            filled += to - from;
            left.extend(
                [(gap.start, from), (to, gap.end)]
                    .into_iter()
                    .filter(|(start, end)| start < end)
                    .map(|(start, end)| Gap { start, end }),
            );
        }
        self.gaps = left;
        self.trim();
        filled + loose
    }

    /// Forgets the oldest gaps beyond the bound. From there on more may be
    /// counted than was sent, never less.
    fn trim(&mut self) {
        let excess = self.gaps.len().saturating_sub(MAX_GAPS);
        for gap in self.gaps.drain(..excess) {
            self.forgotten += gap.end - gap.start;
            self.loose_below = gap.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(offset: u64, new: u32, resent: u32) -> Seen {
        Seen {
            offset: Some(offset),
            before: 0,
            new,
            resent,
        }
    }

    #[test]
    fn numbers_wrap_and_repeats_count_once() {
        let mut stream = Sequence::default();
        stream.syn(u32::MAX - 4);
        assert_eq!(stream.payload(u32::MAX - 3, 10), seen(0, 10, 0));
        assert_eq!(stream.payload(u32::MAX - 3, 10), seen(0, 0, 10));
        assert_eq!(stream.payload(4, 10), seen(8, 8, 2));
        assert_eq!(stream.end, 18);
    }

    #[test]
    fn a_gap_is_missed_only_once_it_is_acknowledged() {
        let mut stream = Sequence::default();
        stream.syn(999);
        stream.payload(1000, 10);
        assert_eq!(stream.payload(1100, 10), seen(100, 10, 0));
        assert_eq!(stream.missed(), 0);
        stream.ack(1110);
        assert_eq!(stream.missed(), 90);
        assert_eq!(stream.payload(1010, 40), seen(10, 40, 0));
        assert_eq!(stream.missed(), 50);
        assert_eq!(stream.payload(1000, 110), seen(0, 50, 60));
        assert_eq!(stream.missed(), 0);
        stream.ack(1111);
        assert_eq!(stream.missed(), 0, "one more is the FIN");
        stream.ack(1200);
        assert_eq!(stream.missed(), 90);
        stream.ack(1200_u32.wrapping_add(1 << 31));
        assert_eq!(stream.missed(), 90, "beyond any window");
    }

    #[test]
    fn bytes_before_the_start_are_new_and_those_behind_them_are_the_streams() {
        let mut stream = Sequence::default();
        stream.syn(999);
        stream.payload(1000, 5);
        let check = |stream: &mut Sequence, seq, len, expected| {
            assert_eq!(stream.payload(seq, len), expected, "{seq}");
        };
        let wholly = Seen {
            before: 10,
            new: 10,
            ..Seen::default()
        };
        check(&mut stream, 900, 10, wholly);
        check(&mut stream, 990, 10, wholly);
        let partly = Seen {
            before: 10,
            ..seen(0, 13, 5)
        };
        check(&mut stream, 990, 18, partly);
        assert_eq!(stream.end, 8);
    }

    #[test]
    fn a_syn_with_another_number_begins_another_stream() {
        let mut stream = Sequence::default();
        assert!(!stream.is_restarted_by(7));
        stream.syn(u32::MAX - 3);
        for seen in [0, 10] {
            stream.payload(u32::MAX - 2, seen);
            assert!(!stream.is_restarted_by(u32::MAX - 3));
            assert!(stream.is_restarted_by(u32::MAX - 4));
            let last = (u32::MAX - 2).wrapping_add(seen);
            assert!(stream.is_answered_by(last) && !stream.is_answered_by(last.wrapping_add(1)));
            assert!(!stream.is_answered_by(u32::MAX - 3));
        }
    }

    proptest! {
        /// However a stream is cut, repeated and shuffled, and however many
        /// gaps there are at a time, no byte of it is missing from the count.
        #[test]
        fn nothing_is_counted_short(
            start: u32,
            pieces in proptest::collection::vec((0_u32..2000, 1_u32..200), 1..120),
        ) {
            let mut stream = Sequence::default();
            stream.syn(start.wrapping_sub(1));
            let mut covered = vec![false; 2200];
            let mut counted = 0;
            for (at, len) in pieces {
                let seen = stream.payload(start.wrapping_add(at), len);
                prop_assert_eq!(seen.new + seen.resent, len);
                counted += u64::from(seen.new);
                for byte in at..at + len {
                    covered[byte as usize] = true;
                }
                prop_assert!(stream.gaps.len() <= MAX_GAPS);
            }
            let exact = covered.iter().filter(|seen| **seen).count() as u64;
            prop_assert!(counted >= exact);
            if stream.loose_below == 0 {
                prop_assert_eq!(counted, exact);
            }
        }
    }
}
