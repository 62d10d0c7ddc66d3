//! Names by address, bounded.

use super::Answered;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// The names that one kind of resolvers gave to addresses.
#[derive(Debug)]
pub(super) struct Shelf {
    by_address: HashMap<IpAddr, Entry>,
    /// Addresses in the order of their use. An entry that was used again since
    /// has a later place as well, which alone counts.
    order: VecDeque<(u64, IpAddr)>,
    uses: u64,
    max_addresses: usize,
    /// Names of all addresses together.
    names: usize,
    /// An address was forgotten.
    forgot: bool,
}

#[derive(Debug, Default)]
struct Entry {
    names: Vec<Answered>,
    used: u64,
    /// One of its names was forgotten.
    forgot: bool,
}

/// Names kept per address; large hosts serve more, but one sandbox asks for few.
pub(super) const MAX_NAMES: usize = 32;
/// Bytes of text of one address's names, so that a record has room for all.
const MAX_NAMES_TEXT: usize = 16 * 1024;
/// Names kept in all, as a multiple of the addresses.
const NAMES_PER_ADDRESS: usize = 2;
/// Places in the order, as a multiple of the addresses.
const PLACES_PER_ADDRESS: usize = 2;

impl Shelf {
    pub(super) fn new(max_addresses: usize) -> Self {
        Self {
            by_address: HashMap::new(),
            order: VecDeque::new(),
            uses: 0,
            max_addresses: max_addresses.max(1),
            names: 0,
            forgot: false,
        }
    }

    pub(super) fn learn(&mut self, address: IpAddr, answered: Answered) {
        let entry = self.by_address.entry(address).or_default();
        let before = entry.names.len();
        let same =
            |known: &Answered| known.name == answered.name && known.resolver == answered.resolver;
        entry.names.retain(|known| !same(known));
        while !entry.names.is_empty() && !has_room(&entry.names, &answered) {
            entry.names.remove(0);
            entry.forgot = true;
        }
        entry.names.push(answered);
        self.names = self.names + entry.names.len() - before;
        self.touch(address);
        let max_names = MAX_NAMES.max(self.max_addresses.saturating_mul(NAMES_PER_ADDRESS));
        while self.by_address.len() > self.max_addresses || self.names > max_names {
            self.forget_idlest();
        }
    }

    /// The address is in use: others are forgotten before it.
    pub(super) fn touch(&mut self, address: IpAddr) {
        let Some(entry) = self.by_address.get_mut(&address) else {
            return;
        };
        if entry.used == self.uses && self.uses > 0 {
            return;
        }
        self.uses += 1;
        entry.used = self.uses;
        self.order.push_back((self.uses, address));
        if self.order.len() > self.max_addresses.saturating_mul(PLACES_PER_ADDRESS) {
            let known = &self.by_address;
            let counts = |(used, address): &(u64, IpAddr)| {
                known.get(address).is_some_and(|entry| entry.used == *used)
            };
            self.order.retain(counts);
        }
    }

    pub(super) fn names(&self, address: IpAddr) -> &[Answered] {
        let entry = self.by_address.get(&address);
        entry.map_or(&[], |entry| &entry.names)
    }

    pub(super) fn take(
        &mut self,
        address: IpAddr,
        of: impl Fn(&Answered) -> bool,
    ) -> Vec<Answered> {
        let Some(entry) = self.by_address.get_mut(&address) else {
            return Vec::new();
        };
        let taken: Vec<_> = entry.names.extract_if(.., |known| of(known)).collect();
        self.names -= taken.len();
        taken
    }

    /// Whether a name of the address may have been forgotten.
    pub(super) fn may_have_forgotten(&self, address: IpAddr) -> bool {
        let entry = self.by_address.get(&address);
        entry.map_or(self.forgot, |entry| entry.forgot)
    }

    fn forget_idlest(&mut self) {
        let Some((used, address)) = self.order.pop_front() else {
            return;
        };
        if self
            .by_address
            .get(&address)
            .is_some_and(|it| it.used == used)
            && let Some(entry) = self.by_address.remove(&address)
        {
            self.names -= entry.names.len();
            self.forgot = true;
        }
    }

    #[cfg(test)]
    pub(super) fn addresses(&self) -> usize {
        self.by_address.len()
    }
}

/// Whether a list of names has room for another one.
pub(super) fn has_room(names: &[Answered], another: &Answered) -> bool {
    let text: usize = names.iter().map(|it| it.name.len()).sum();
    names.len() < MAX_NAMES && text + another.name.len() <= MAX_NAMES_TEXT
}
