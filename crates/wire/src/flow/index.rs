//! Which slot has the flow of a key.

use crate::flow::one::Flow;
use crate::key::FlowKey;
use hashbrown::HashTable;
use std::hash::{BuildHasher as _, RandomState};

/// Finds flows by their keys. It holds slots alone, the keys being in the
/// flows: a packet touches its flow anyway, and so small a table stays in the
/// processor's cache. The hash is keyed, so that a guest cannot make collisions.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: HashTable<u32>,
    hasher: RandomState,
}

impl Index {
    /// The slot in `flows` of the flow with this key.
    pub(super) fn find(&self, key: &FlowKey, flows: &[Option<Flow>]) -> Option<u32> {
        let has_key = |slot: &u32| flow(flows, *slot).is_some_and(|flow| flow.key == *key);
        self.slots.find(self.hasher.hash_one(key), has_key).copied()
    }

    /// Notes down the slot of a flow that is in `flows` and was not noted down.
    pub(super) fn insert(&mut self, slot: u32, flows: &[Option<Flow>]) {
        let hash = |slot: &u32| flow(flows, *slot).map_or(0, |flow| self.hasher.hash_one(flow.key));
        self.slots.insert_unique(hash(&slot), slot, hash);
    }

    /// Forgets the slot of the flow with this key.
    pub(super) fn remove(&mut self, key: &FlowKey, slot: u32) {
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.slots.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

fn flow(flows: &[Option<Flow>], slot: u32) -> Option<&Flow> {
    flows.get(usize::try_from(slot).ok()?)?.as_ref()
}
