//! Facts between whoever sees them and whoever takes them.

use super::{Fact, FactKind, names, rare};

/// Facts that wait at most; more are counted.
const MOST: usize = 16_384;

/// Of these so many are kept for alarms: who makes many ordinary calls hides none.
const FOR_ALARMS: usize = MOST / 4;

/// Facts of one sandbox that wait to be taken, in order.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    facts: Vec<Fact>,
    dropped: u64,
}

impl Waiting {
    /// Keeps a fact, or counts it where there is no room.
    pub(crate) fn push(&mut self, fact: Fact) {
        let waiting = self.facts.len();
        if waiting >= MOST || (waiting >= MOST - FOR_ALARMS && !is_alarm(&fact)) {
            self.dropped = self.dropped.saturating_add(1);
        } else {
            self.facts.push(fact);
        }
    }

    /// All that wait.
    pub(crate) fn take(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    /// How many there was no room for since this was last asked.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

fn is_alarm(fact: &Fact) -> bool {
    match &fact.what {
        FactKind::Call(call) => rare::is_alarm(&names::name(call.abi, call.number)),
        FactKind::Sigsys(_) => true,
        FactKind::Ends(_) => false,
    }
}
