//! What comes first of many, which every packet asks for.

use std::collections::BTreeMap;

/// A map by order of its keys, whose first is at hand.
#[derive(Debug)]
pub(crate) struct Earliest<K, V> {
    ordered: BTreeMap<K, V>,
    first: Option<K>,
}

impl<K, V> Default for Earliest<K, V> {
    fn default() -> Self {
        Self {
            ordered: BTreeMap::new(),
            first: None,
        }
    }
}

impl<K: Copy + Ord, V> Earliest<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.ordered.insert(key, value);
        self.first = Some(self.first.map_or(key, |first| first.min(key)));
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let value = self.ordered.remove(&key);
        if self.first == Some(key) {
            self.first = self.ordered.first_key_value().map(|(key, _)| *key);
        }
        value
    }

    pub(crate) const fn first(&self) -> Option<K> {
        self.first
    }
}
