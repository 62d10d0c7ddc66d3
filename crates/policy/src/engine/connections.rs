//! How many conversations of a rule are open at the same time.

use sandtrace_event::FlowPhase;
use std::collections::{BTreeMap, HashSet};

/// Conversations over a limit that are remembered as such, for each rule.
const MAX_OVER: usize = 65_536;

/// Open conversations of each rule that bounds their number.
#[derive(Debug, Default)]
pub(super) struct Connections(BTreeMap<usize, Open>);

#[derive(Debug, Default)]
struct Open {
    /// At most as many as the rule allows.
    within: HashSet<u64>,
    /// Opened while the rule's number was reached: over it until they close.
    over: HashSet<u64>,
}

impl Connections {
    /// Counts a conversation for a rule; whether it is within the limit.
    pub(super) fn admit(&mut self, rule: usize, flow: u64, phase: FlowPhase, limit: u32) -> bool {
        self.release_except(Some(rule), flow);
        let open = self.0.entry(rule).or_default();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let within = open.within.contains(&flow)
            || (!open.over.contains(&flow) && open.within.len() < limit);
        if phase == FlowPhase::Close {
            open.within.remove(&flow);
            open.over.remove(&flow);
        } else if within {
            open.within.insert(flow);
        } else if open.over.len() < MAX_OVER {
            open.over.insert(flow);
        }
        within
    }

    /// A conversation is judged by another rule now, or by none.
    pub(super) fn release_except(&mut self, rule: Option<usize>, flow: u64) {
        for (own, open) in &mut self.0 {
            if Some(*own) != rule {
                open.within.remove(&flow);
                open.over.remove(&flow);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FlowPhase::{Close, Open, Update};

    #[test]
    fn a_place_is_free_again_after_a_close() {
        let mut connections = Connections::default();
        let mut admit = |flow, phase| connections.admit(0, flow, phase, 2);
        assert!(admit(1, Open));
        assert!(admit(2, Open));
        assert!(!admit(3, Open));
        assert!(admit(1, Update));
        assert!(admit(1, Close));
        assert!(!admit(3, Update), "once over, over until it closes");
        assert!(admit(4, Open));
        assert!(!admit(3, Close));
        assert!(!admit(5, Open));
        assert!(admit(2, Close));
        assert!(admit(6, Close));
        assert!(admit(7, Open));
    }

    #[test]
    fn another_rule_takes_a_conversation_over() {
        let mut connections = Connections::default();
        assert!(connections.admit(0, 1, Open, 1));
        assert!(connections.admit(1, 1, Update, 1));
        assert!(connections.admit(0, 2, Open, 1));
        assert!(!connections.admit(1, 3, Open, 1));
        connections.release_except(None, 1);
        assert!(connections.admit(1, 4, Open, 1));
    }
}
