//! Which frames are of one conversation, told by counting all of them once more.

use crate::flow::one::Flow;
use crate::key::FlowKey;
use crate::packet::Moment;
use crate::view::{Endpoint, Protocol};
use std::collections::HashMap;

/// A conversation as its last report has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What its frames carry.
    pub protocol: Protocol,
    /// The sandbox's end.
    pub sandbox: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Outer VLAN identifier, where tagged.
    pub vlan: Option<u16>,
    /// ICMP type of the first message.
    pub icmp_type: Option<u8>,
    /// Wall time of the first frame.
    pub first_ns: u64,
    /// Wall time of the last frame, as far as it is known.
    pub last_ns: u64,
    /// The first frame, which tells it from others of the same ends, is lost: the
    /// first of these ends in its time is taken.
    pub lacks_first: bool,
}

/// Numbers of frames, the first handed in being 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// A bit for each.
    words: Vec<u64>,
}

impl Found {
    /// Whether this frame is one of them.
    #[must_use]
    pub fn contains(&self, frame: u64) -> bool {
        let word = usize::try_from(frame / 64).ok();
        let word = word.and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (frame % 64) & 1 == 1)
    }

    fn insert(&mut self, frame: u64) {
        let Ok(at) = usize::try_from(frame / 64) else {
            return;
        };
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        if let Some(word) = self.words.get_mut(at) {
            *word |= 1 << (frame % 64);
        }
    }
}

/// Follows frames to the flow that they are counted in. It holds a number for
/// each fragment that waits, and a bit for each frame.
#[derive(Debug)]
pub(crate) struct Search {
    wanted: Wanted,
    /// The conversation's key and its flow, once it began.
    met: Option<(FlowKey, u64)>,
    frames: u64,
    /// Frames of what is counted next.
    current: Vec<u64>,
    /// Frames of datagrams that are not whole yet, by the datagram's number.
    waiting: HashMap<u64, Vec<u64>>,
    found: Option<Found>,
}

impl Search {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            met: None,
            frames: 0,
            current: Vec::new(),
            waiting: HashMap::new(),
            found: None,
        }
    }

    /// Another frame came.
    pub(crate) fn frame(&mut self) {
        self.current.clear();
        self.current.push(self.frames);
        self.frames += 1;
    }

    /// It is a fragment of a datagram that waits for more. Where it is inside
    /// of a tunnel its frame was counted already.
    pub(crate) fn wait(&mut self, datagram: u64) {
        if !self.current.is_empty() {
            let frames = self.waiting.entry(datagram).or_default();
            frames.append(&mut self.current);
        }
    }

    /// This datagram is counted next, whole or not.
    pub(crate) fn resume(&mut self, datagram: u64) {
        if let Some(mut frames) = self.waiting.remove(&datagram) {
            self.current.append(&mut frames);
        }
    }

    /// What came is counted in this flow; the first of its frames came at `since`.
    pub(crate) fn counted(&mut self, flow: &Flow, since: Moment) {
        let (key, id) = (flow.key, flow.id());
        if self.met.is_none() && self.wanted.begins(since) && self.wanted.is(flow) {
            self.met = Some((key, id));
        }
        // An idle time may have ended a little earlier here: what began under the same
        // key before the conversation's last frame is a part of it.
        let is_found = self.met.is_some_and(|(met, first)| {
            met == key && (id == first || self.wanted.lasts(flow.started()))
        });
        for frame in self.current.drain(..) {
            if is_found {
                self.found.get_or_insert_default().insert(frame);
            }
        }
    }

    pub(crate) fn found(self) -> Option<Found> {
        self.found
    }
}

impl Wanted {
    fn begins(&self, at: Moment) -> bool {
        at.wall_ns == self.first_ns || (self.lacks_first && self.lasts(at))
    }

    fn lasts(&self, at: Moment) -> bool {
        (self.first_ns..=self.last_ns).contains(&at.wall_ns)
    }

    fn is(&self, flow: &Flow) -> bool {
        let key = &flow.key;
        key.within() == 0
            && key.protocol == self.protocol
            && key.sandbox() == self.sandbox
            && key.peer() == self.peer
            && key.vlan() == self.vlan
            && flow.icmp_type() == self.icmp_type
    }
}
