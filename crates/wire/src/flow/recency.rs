//! Which flow was used longest ago.

/// A doubly linked list over slots, the idlest first. The links stand apart
/// from the flows so that moving a flow touches few cache lines.
#[derive(Debug, Default)]
pub(crate) struct Recency {
    links: Vec<Link>,
    idlest: Option<u32>,
    latest: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    idler: Option<u32>,
    later: Option<u32>,
}

impl Recency {
    /// The slot used longest ago.
    pub(crate) const fn idlest(&self) -> Option<u32> {
        self.idlest
    }

    /// Adds a slot that is not in the list, as the latest.
    pub(crate) fn add(&mut self, slot: u32) {
        let at = index(slot);
        if self.links.len() <= at {
            self.links.resize(at + 1, Link::default());
        }
        self.set(slot, |link| {
            *link = Link {
                idler: None,
                later: None,
            };
        });
        let former = self.latest.replace(slot);
        match former {
            Some(former) => {
                self.set(former, |link| link.later = Some(slot));
                self.set(slot, |link| link.idler = Some(former));
            }
            None => self.idlest = Some(slot),
        }
    }

    /// Makes a slot of the list the latest.
    pub(crate) fn touch(&mut self, slot: u32) {
        if self.latest != Some(slot) {
            self.remove(slot);
            self.add(slot);
        }
    }

    /// Takes a slot out of the list.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get(index(slot)).copied() else {
            return;
        };
        match link.idler {
            Some(idler) => self.set(idler, |it| it.later = link.later),
            None => self.idlest = link.later,
        }
        match link.later {
            Some(later) => self.set(later, |it| it.idler = link.idler),
            None => self.latest = link.idler,
        }
    }

    fn set(&mut self, slot: u32, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(index(slot)) {
            change(link);
        }
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_queue(steps in proptest::collection::vec((0_u32..8, any::<bool>()), 0..200)) {
            let mut list = Recency::default();
            let mut model: Vec<u32> = Vec::new();
            for (slot, keep) in steps {
                let at = model.iter().position(|known| *known == slot);
                match (at, keep) {
                    (Some(at), true) => {
                        model.remove(at);
                        model.push(slot);
                        list.touch(slot);
                    }
                    (Some(at), false) => {
                        model.remove(at);
                        list.remove(slot);
                    }
                    (None, _) => {
                        model.push(slot);
                        list.add(slot);
                    }
                }
                prop_assert_eq!(list.idlest(), model.first().copied());
                prop_assert_eq!(list.latest, model.last().copied());
            }
        }
    }
}
