//! The first bytes of one direction of a connection, in order.

/// Puts segments in order, up to a bound, and notices bytes that change.
#[derive(Debug)]
pub(crate) struct Assembler {
    /// The stream from offset 0 on, without a gap.
    data: Vec<u8>,
    /// Segments after a gap, by offset; they may overlap.
    held: Vec<Held>,
    held_bytes: usize,
    limit: usize,
    broken: bool,
    /// Something was sent that was not read: more pieces than may be held, what
    /// lies behind the bound, or what was not captured.
    overrun: bool,
    /// The stream ends where the capture took no more of a segment.
    cut: bool,
    inconsistent: bool,
}

#[derive(Debug)]
struct Held {
    offset: usize,
    bytes: Vec<u8>,
    end: End,
}

/// Why no more of a segment is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is all there.
    Whole,
    /// It goes on after what was captured of it.
    Cut,
    /// It goes on after the bound.
    Bound,
}

/// Segments that may wait for a gap to be filled.
const MAX_HELD: usize = 64;

impl Assembler {
    /// An empty stream that is read up to `limit` bytes.
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            data: Vec::new(),
            held: Vec::new(),
            held_bytes: 0,
            limit,
            broken: false,
            overrun: false,
            cut: false,
            inconsistent: false,
        }
    }

    /// Takes in a segment of `len` bytes of which `bytes` were captured.
    pub(crate) fn insert(&mut self, offset: u64, bytes: &[u8], len: u32) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let room = self.limit.saturating_sub(offset);
        if self.broken || room == 0 {
            self.overrun = true;
            return;
        }
        let end = if bytes.len() > room {
            End::Bound
        } else if bytes.len() < usize::try_from(len).unwrap_or(usize::MAX) {
            End::Cut
        } else {
            End::Whole
        };
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.compare(offset, bytes);
        if offset <= self.data.len() {
            self.append(offset, bytes, end);
            self.release();
        } else {
            self.hold(offset, bytes, end);
        }
    }

    /// Reads no further. What was read is kept, for [`Self::check`].
    pub(crate) fn stop(&mut self) {
        self.broken = true;
        self.held = Vec::new();
        self.held_bytes = 0;
        self.data.shrink_to_fit();
    }

    /// Compares a segment with what is kept of the stream, and keeps nothing of it.
    pub(crate) fn check(&mut self, offset: u64, bytes: &[u8]) {
        if let Ok(offset) = usize::try_from(offset)
            && offset < self.data.len()
        {
            self.compare(offset, bytes);
        }
    }

    /// Forgets the stream.
    pub(crate) fn forget(&mut self) {
        self.stop();
        self.data = Vec::new();
    }

    /// The stream so far.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    /// Whether nothing more will come: the bound was reached, or a part of the
    /// stream was not captured.
    pub(crate) fn is_over(&self) -> bool {
        self.broken || self.data.len() >= self.limit
    }

    /// Whether the stream ends where the capture took no more of a segment.
    pub(crate) const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether something was sent that is not part of the stream so far, for
    /// one of the bounds or a gap before it.
    pub(crate) const fn is_partial(&self) -> bool {
        self.overrun || self.cut || !self.held.is_empty()
    }

    /// Whether the same offset was sent with different bytes.
    pub(crate) const fn is_inconsistent(&self) -> bool {
        self.inconsistent
    }

    /// Bytes of memory in use.
    pub(crate) fn footprint(&self) -> usize {
        self.data.capacity() + self.held_bytes + self.held.capacity() * size_of::<Held>()
    }

    fn append(&mut self, offset: usize, bytes: &[u8], end: End) {
        let known = self.data.len().saturating_sub(offset);
        if let Some(fresh) = bytes.get(known..) {
            self.data.extend_from_slice(fresh);
            self.broken |= end != End::Whole;
            self.cut |= end == End::Cut;
            self.overrun |= end == End::Bound;
        }
    }

    fn hold(&mut self, offset: usize, bytes: &[u8], end: End) {
        if self.held.len() >= MAX_HELD || self.held_bytes + bytes.len() > self.limit {
            self.broken = true;
            self.overrun = true;
            return;
        }
        self.held_bytes += bytes.len();
        let at = self.held.partition_point(|held| held.offset <= offset);
        self.held.insert(
            at,
            Held {
                offset,
                bytes: bytes.to_vec(),
                end,
            },
        );
    }

    /// Appends what no longer waits for a gap.
    fn release(&mut self) {
        let ready = self
            .held
            .partition_point(|held| held.offset <= self.data.len());
        if ready == 0 {
            return;
        }
        let mut waiting = std::mem::take(&mut self.held).into_iter().peekable();
        while let Some(held) = waiting.next_if(|held| held.offset <= self.data.len()) {
            self.held_bytes -= held.bytes.len();
            self.append(held.offset, &held.bytes, held.end);
        }
        self.held = waiting.collect();
    }

    fn compare(&mut self, offset: usize, bytes: &[u8]) {
        let differs = |at: usize, known: &[u8]| {
            let start = offset.max(at);
            let end = (offset + bytes.len()).min(at + known.len());
            start < end
                && bytes.get(start - offset..end - offset) != known.get(start - at..end - at)
        };
        let changed = differs(0, &self.data)
            || self
                .held
                .iter()
                .any(|held| differs(held.offset, &held.bytes));
        self.inconsistent |= changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_segment_ends_the_stream() {
        let mut stream = Assembler::new(100);
        stream.insert(0, b"abc", 3);
        stream.insert(3, b"de", 20);
        assert_eq!(stream.data(), b"abcde");
        assert!(stream.is_over() && stream.is_cut());
    }

    #[test]
    fn changed_bytes_are_noticed_and_the_first_ones_stay() {
        let mut stream = Assembler::new(100);
        stream.insert(5, b"world", 5);
        stream.insert(4, b" World", 6);
        assert!(stream.is_inconsistent());
        let mut stream = Assembler::new(100);
        stream.insert(0, b"hello", 5);
        stream.insert(3, b"lo", 2);
        assert!(!stream.is_inconsistent());
        stream.insert(3, b"LOw", 3);
        assert!(stream.is_inconsistent());
        assert_eq!(stream.data(), b"hellow");
    }

    #[test]
    fn memory_is_bounded() {
        let mut stream = Assembler::new(1000);
        for round in 0..100 {
            stream.insert(10 + round, &[0; 900], 900);
        }
        assert!(stream.footprint() < 1000 + MAX_HELD * size_of::<Held>());
        assert!(stream.is_over());
        let mut stream = Assembler::new(1000);
        stream.insert(0, &[0; 5000], 5000);
        assert_eq!(stream.data().len(), 1000);
        assert!(stream.is_over() && !stream.is_cut());
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_stream(
            text in proptest::collection::vec(any::<u8>(), 1..400),
            cuts in proptest::collection::vec((0_usize..400, 1_usize..80), 0..40),
            seed in any::<u64>(),
        ) {
            let mut pieces: Vec<(usize, usize)> = cuts
                .into_iter()
                .map(|(at, len)| (at % text.len(), len))
                .chain((0..text.len()).step_by(16).map(|at| (at, 16)))
                .collect();
            let len = pieces.len();
            for at in 0..len {
                pieces.swap(at, (seed as usize).wrapping_mul(at + 7) % len);
            }
            let mut stream = Assembler::new(4096);
            for (at, len) in pieces {
                let piece = &text[at..text.len().min(at + len)];
                stream.insert(at as u64, piece, piece.len() as u32);
            }
            prop_assert!(!stream.is_inconsistent());
            if !stream.is_over() {
                prop_assert_eq!(stream.data(), &text[..]);
            }
        }
    }
}
