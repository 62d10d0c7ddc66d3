//! Names that stand for others, where the answer that says so has no address.
//!
//! An HTTPS record in alias mode is followed by a question for its target. The
//! target's address then is that of the name that was asked for first, which is
//! what the client's hello names.

use crate::packet::Moment;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Who stands for whom, bounded.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    by_target: HashMap<Arc<str>, Vec<Owner>>,
    /// Targets in the order in which they came in.
    order: VecDeque<Arc<str>>,
}

/// A name for which another one stands.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) name: Arc<str>,
    /// Accepted resolvers said so, all the way.
    pub(super) accepted: bool,
    /// Since when this is known.
    pub(super) at: Moment,
}

/// Targets that are remembered; a sandbox asks for few.
const MAX_TARGETS: usize = 1024;
/// Names for which one target stands.
const MAX_OWNERS: usize = 8;
/// Names in a row that stand for each other (RFC 9460 section 3).
const MAX_CHAIN: usize = 8;

impl Aliases {
    pub(super) fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }

    pub(super) fn learn(&mut self, target: &str, name: &Arc<str>, accepted: bool, at: Moment) {
        if !self.by_target.contains_key(target) {
            if self.order.len() >= MAX_TARGETS
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_target.remove(&oldest);
            }
            let target: Arc<str> = Arc::from(target);
            self.order.push_back(Arc::clone(&target));
            self.by_target.insert(target, Vec::new());
        }
        let Some(owners) = self.by_target.get_mut(target) else {
            return;
        };
        if let Some(known) = owners.iter_mut().find(|it| it.name == *name) {
            if accepted && !known.accepted {
                (known.accepted, known.at) = (true, at);
            }
            return;
        }
        if owners.len() >= MAX_OWNERS {
            // An accepted resolver's word is not to be pushed out by others.
            let victim = owners.iter().position(|owner| !owner.accepted);
            owners.remove(victim.unwrap_or(0));
        }
        owners.push(Owner {
            name: Arc::clone(name),
            accepted,
            at,
        });
    }

    /// The names for which `name` stands, of which it is known since `at`.
    pub(super) fn owners(&self, name: &Arc<str>, accepted: bool, at: Moment) -> Vec<Owner> {
        let mut found: Vec<Owner> = Vec::new();
        let mut next = vec![Owner {
            name: Arc::clone(name),
            accepted,
            at,
        }];
        for _ in 0..MAX_CHAIN {
            let Some(target) = next.pop() else {
                break;
            };
            for owner in self.by_target.get(&target.name).into_iter().flatten() {
                if found.iter().all(|known| known.name != owner.name) {
                    let owner = Owner {
                        name: Arc::clone(&owner.name),
                        accepted: target.accepted && owner.accepted,
                        at: later(target.at, owner.at),
                    };
                    found.push(owner.clone());
                    next.push(owner);
                }
            }
        }
        found
    }
}

fn later(one: Moment, other: Moment) -> Moment {
    if one.mono_us < other.mono_us {
        other
    } else {
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment {
        mono_us: 1,
        wall_ns: 1000,
    };

    #[test]
    fn whoever_stands_for_others_stands_for_theirs() {
        let mut aliases = Aliases::default();
        aliases.learn("pool.example", &"cdn.example".into(), true, AT);
        aliases.learn("cdn.example", &"shop.example".into(), true, AT);
        aliases.learn("cdn.example", &"rogue.example".into(), false, AT);
        aliases.learn("shop.example", &"pool.example".into(), true, AT);
        let owners = |name: &str, accepted| -> Vec<(String, bool)> {
            let owners = aliases.owners(&name.into(), accepted, AT).into_iter();
            owners
                .map(|owner| (owner.name.to_string(), owner.accepted))
                .collect()
        };
        assert_eq!(
            owners("pool.example", true),
            [
                ("cdn.example".to_owned(), true),
                ("shop.example".to_owned(), true),
                ("rogue.example".to_owned(), false),
                ("pool.example".to_owned(), true),
            ]
        );
        assert!(owners("pool.example", false).iter().all(|(_, both)| !both));
        assert!(owners("other.example", true).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut aliases = Aliases::default();
        for number in 0..5000 {
            aliases.learn(&format!("{number}.example"), &"a".into(), true, AT);
            aliases.learn("4999.example", &format!("{number}").into(), number == 3, AT);
        }
        assert_eq!(aliases.order.len(), MAX_TARGETS);
        assert_eq!(aliases.by_target.len(), MAX_TARGETS);
        let owners = aliases.owners(&"4999.example".into(), true, AT);
        assert_eq!(owners.len(), MAX_OWNERS);
    }
}
