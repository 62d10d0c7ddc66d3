//! Joins the fragments of IP datagrams, bounded in memory.

use crate::findings::{Finding, Findings};
use crate::frame::{Fragment, Frame, IPV4, IPV6};
use crate::key::{Addresses, FrameKey};
use crate::packet::{Direction, Moment};
use crate::tunnel::TunnelKind;
use crate::view::Protocol;
use std::collections::{HashMap, VecDeque};

/// Datagrams of which not all fragments have come yet.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    waiting: HashMap<Key, Datagram>,
    /// In the order of their first fragments; may name some that are gone.
    order: VecDeque<Place>,
    begun: u64,
    bytes: usize,
}

/// What tells one datagram's fragments from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    addresses: Addresses,
    vlans: (Option<u16>, Option<u16>),
    within: u32,
    protocol: Protocol,
    direction: Direction,
    id: u32,
}

/// A datagram's place in the order.
#[derive(Debug)]
struct Place {
    number: u64,
    first_us: u64,
    key: Key,
}

impl Place {
    /// Whether its datagram still waits, and not another one of that key.
    fn is_taken(&self, waiting: &HashMap<Key, Datagram>) -> bool {
        let datagram = waiting.get(&self.key);
        datagram.is_some_and(|datagram| datagram.counted.number == self.number)
    }
}

/// A datagram that is not whole yet.
#[derive(Debug)]
struct Datagram {
    counted: Counted,
    /// In order and without overlap.
    parts: Vec<Part>,
    /// Length of the whole payload, once the last fragment came.
    total: Option<u32>,
}

#[derive(Debug)]
struct Part {
    start: u32,
    end: u32,
    /// What was captured of it.
    bytes: Vec<u8>,
}

/// Frames that carry one datagram's fragments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// As of fragments whose ports are not known.
    pub(crate) key: FrameKey,
    /// Of the datagram, from 1.
    pub(crate) number: u64,
    pub(crate) direction: Direction,
    /// What carries them, where they are inside a tunnel.
    pub(crate) within: u32,
    pub(crate) tunnel: Option<(TunnelKind, u64)>,
    pub(crate) frames: u32,
    pub(crate) wire_bytes: u64,
    /// Bytes of fragments without IP headers.
    pub(crate) payload_bytes: u64,
    pub(crate) first: Moment,
    pub(crate) last: Moment,
    /// What is odd about them.
    pub(crate) findings: Findings,
}

/// A datagram that all of its fragments make.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) counted: Counted,
    pub(crate) ether_type: u16,
    /// With an IP header of its own.
    pub(crate) bytes: Vec<u8>,
    /// Length of the whole with that header; some may not have been captured.
    pub(crate) wire_len: u32,
}

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is of the datagram with this number, which is not whole.
    Waits(u64),
    Joined(Joined),
    /// These frames will never be joined.
    GivenUp(Counted),
}

/// Datagrams that wait at once.
const MAX_DATAGRAMS: usize = 512;
/// Bytes that wait in all.
const MAX_BYTES: usize = 4 << 20;
/// Parts of one datagram: 64 KiB in Ethernet frames are 45.
const MAX_PARTS: usize = 512;
/// A datagram's length has 16 bits; a part may reach a little beyond.
const MAX_TOTAL: u32 = 65_535 + 8;
/// What a part costs beside its bytes.
const PART_COST: usize = size_of::<Part>();

impl Fragments {
    /// Takes in a fragment of a frame that was `wire_len` bytes long. Whoever
    /// calls asks [`surplus`](Self::surplus) afterwards.
    pub(crate) fn insert(
        &mut self,
        frame: &Frame<'_>,
        fragment: Fragment,
        mut counted: Counted,
    ) -> Outcome {
        counted.key.later_fragment = true;
        let key = Key {
            addresses: frame.key.addresses,
            vlans: frame.key.vlans,
            within: counted.within,
            protocol: frame.key.protocol,
            direction: counted.direction,
            id: fragment.id,
        };
        let (begun, order) = (&mut self.begun, &mut self.order);
        let datagram = self.waiting.entry(key).or_insert_with(|| {
            *begun += 1;
            order.push_back(Place {
                number: *begun,
                first_us: counted.first.mono_us,
                key,
            });
            Datagram {
                counted: Counted {
                    number: *begun,
                    frames: 0,
                    wire_bytes: 0,
                    payload_bytes: 0,
                    ..counted
                },
                parts: Vec::new(),
                total: None,
            }
        });
        datagram.count(&counted);
        let number = datagram.counted.number;
        let held = datagram.add(fragment, frame.payload, frame.payload_len);
        let whole = datagram.total.is_some_and(|total| datagram.covers(total));
        self.bytes += held.unwrap_or(0);
        if held.is_some() && !whole {
            return Outcome::Waits(number);
        }
        let Some(datagram) = self.take(&key) else {
            return Outcome::Waits(number);
        };
        match datagram.total.filter(|_| whole) {
            Some(total) => Outcome::Joined(datagram.join(total)),
            None => Outcome::GivenUp(datagram.counted),
        }
    }

    /// A datagram that has to go for lack of memory.
    pub(crate) fn surplus(&mut self) -> Option<Counted> {
        let too_many = self.waiting.len() > MAX_DATAGRAMS || self.bytes > MAX_BYTES;
        too_many.then(|| self.pop(u64::MAX)).flatten()
    }

    /// A datagram whose first fragment came at or before `since_us`.
    pub(crate) fn overdue(&mut self, since_us: u64) -> Option<Counted> {
        self.pop(since_us)
    }

    /// When the oldest datagram began, or one before it that is gone. Asked
    /// for every frame, so nothing is looked up.
    pub(crate) fn oldest_us(&self) -> Option<u64> {
        self.order.front().map(|place| place.first_us)
    }

    fn pop(&mut self, since_us: u64) -> Option<Counted> {
        if self.oldest_us()? > since_us {
            return None;
        }
        self.skip_gone();
        let place = self.order.front()?;
        let key = (place.first_us <= since_us).then_some(place.key)?;
        self.take(&key).map(|it| it.counted)
    }

    /// Forgets the places of datagrams that are gone or began anew.
    fn skip_gone(&mut self) {
        let is_gone = |place: &mut Place| !place.is_taken(&self.waiting);
        while self.order.pop_front_if(is_gone).is_some() {}
    }

    fn take(&mut self, key: &Key) -> Option<Datagram> {
        let datagram = self.waiting.remove(key)?;
        self.bytes -= datagram.footprint();
        // Joined datagrams leave their place in the middle of the queue.
        if self.order.len() > 2 * MAX_DATAGRAMS {
            let waiting = &self.waiting;
            self.order.retain(|place| place.is_taken(waiting));
        }
        Some(datagram)
    }
}

impl Datagram {
    fn count(&mut self, frame: &Counted) {
        let counted = &mut self.counted;
        counted.frames += frame.frames;
        counted.wire_bytes += frame.wire_bytes;
        counted.payload_bytes += frame.payload_bytes;
        counted.last = frame.last;
        counted.findings = counted.findings.union(frame.findings);
    }

    /// Fragments overlap, which no sender's IP layer lets them.
    fn note_overlap(&mut self) {
        self.counted.findings.insert(Finding::OverlappingFragments);
    }

    fn footprint(&self) -> usize {
        self.parts
            .iter()
            .map(|part| part.bytes.len() + PART_COST)
            .sum()
    }

    /// Adds a part; the bytes that came first stay. Answers how much memory
    /// it takes, or `None` where it makes no sense or is too much.
    fn add(&mut self, fragment: Fragment, bytes: &[u8], len: u32) -> Option<usize> {
        let start = fragment.offset;
        let end = start.checked_add(len).filter(|end| *end <= MAX_TOTAL)?;
        if !fragment.more {
            if self.total.is_some_and(|total| total != end) {
                self.note_overlap();
                return None;
            }
            self.total = Some(end);
        }
        if len == 0 || self.parts.len() >= MAX_PARTS {
            return None;
        }
        let at = self.parts.partition_point(|part| part.start < start);
        let before = at.checked_sub(1).and_then(|at| self.parts.get(at));
        let after = self.parts.get(at);
        let overlaps = before.is_some_and(|part| part.end > start)
            || after.is_some_and(|part| part.start < end)
            || self.total.is_some_and(|total| end > total);
        if overlaps {
            // The same part again is a duplicate; anything else is on purpose.
            let same = after
                .is_some_and(|part| part.start == start && part.end == end && part.bytes == bytes);
            if !same {
                self.note_overlap();
            }
            return Some(0);
        }
        let part = Part {
            start,
            end,
            bytes: bytes.to_vec(),
        };
        let cost = part.bytes.len() + PART_COST;
        self.parts.insert(at, part);
        Some(cost)
    }

    fn covers(&self, total: u32) -> bool {
        let reached = self.parts.iter().try_fold(0, |reached, part| {
            (part.start == reached).then_some(part.end)
        });
        reached == Some(total)
    }

    fn join(self, total: u32) -> Joined {
        let (ether_type, mut bytes) = header(&self.counted.key, total);
        let header = u32::try_from(bytes.len()).unwrap_or_default();
        for part in &self.parts {
            bytes.extend_from_slice(&part.bytes);
            if part.bytes.len() < usize::try_from(part.end - part.start).unwrap_or(usize::MAX) {
                // What follows was not captured: the rest would be out of place.
                break;
            }
        }
        Joined {
            counted: self.counted,
            ether_type,
            bytes,
            wire_len: header + total,
        }
    }
}

/// An IP header as the datagram's sender would have written it before it was
/// split, as far as it is read.
fn header(key: &FrameKey, total: u32) -> (u16, Vec<u8>) {
    let protocol = key.protocol.ip_number();
    match key.addresses {
        Addresses::V6(from, to) => {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend(u16::try_from(total).unwrap_or(0).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            (IPV6, bytes)
        }
        Addresses::V4(from, to) => {
            let mut bytes = vec![0x45, 0];
            bytes.extend(u16::try_from(total + 20).unwrap_or(0).to_be_bytes());
            bytes.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            (IPV4, bytes)
        }
        Addresses::None => (0, Vec::new()),
    }
}
