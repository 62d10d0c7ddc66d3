//! The keys of one mapping: each is taken once, and what is left is unknown.

use super::scalar;
use crate::error::{Problem, Problems};
use crate::manifest::Word;
use crate::suggest;
use crate::yaml::{Entry, Mark, Node, Value};

/// A mapping on its way to a value.
pub(crate) struct Fields<'a> {
    at: Mark,
    what: &'static str,
    entries: Vec<&'a Entry>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(node: &'a Node, what: &'static str, problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let message = format!("{what} must be a mapping, not {}", node.kind());
            problems.push(Problem::new(node.at, message));
            return None;
        };
        Some(Self {
            at: node.at,
            what,
            entries: entries.iter().collect(),
            known: Vec::new(),
        })
    }

    pub(crate) fn at(&self) -> Mark {
        self.at
    }

    /// The value of a key that may be absent.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(&self.entries.remove(index).value)
    }

    /// The value of a key that must be there; its absence is reported, as a
    /// misspelling where a key looks like one.
    pub(crate) fn required(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<&'a Node> {
        let found = self.take(key);
        if found.is_none() {
            let hint = format!("did you mean {key:?}?");
            let near = |entry: &&Entry| suggest::among(&entry.key, &[key]) == hint;
            problems.push(match self.entries.iter().position(near) {
                Some(index) => {
                    let entry = self.entries.remove(index);
                    Problem::new(entry.key_at, format!("unknown key {:?}", entry.key)).suggest(hint)
                }
                None => Problem::new(self.at, format!("{} lacks the key {key:?}", self.what)),
            });
        }
        found
    }

    /// Reports a key that does not belong here but might elsewhere; whether
    /// there was one.
    pub(crate) fn misplaced(&mut self, key: &str, advice: &str, problems: &mut Problems) -> bool {
        let Some(index) = self.entries.iter().position(|entry| entry.key == key) else {
            return false;
        };
        let entry = self.entries.remove(index);
        let message = format!("key {key:?} does not belong here");
        problems.push(Problem::new(entry.key_at, message).suggest(advice));
        true
    }

    pub(crate) fn word<T: Word>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<T> {
        let node = self.take(key)?;
        problems.keep(scalar::word(node, key))
    }

    pub(crate) fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        problems: &mut Problems,
    ) -> Option<u64> {
        let node = self.take(key)?;
        problems.keep(scalar::number(node, key, range))
    }

    /// Reports every key that nobody took.
    pub(crate) fn finish(self, problems: &mut Problems) {
        for entry in self.entries {
            let message = format!("unknown key {:?}", entry.key);
            let hint = suggest::among(&entry.key, &self.known);
            problems.push(Problem::new(entry.key_at, message).suggest(hint));
        }
    }
}
