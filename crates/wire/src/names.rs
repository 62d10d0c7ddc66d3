//! Names of addresses, as evidence.

mod aliases;

use crate::claims::Claim;
use crate::packet::Moment;
use aliases::Aliases;
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Who claims that an address has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameSource {
    /// A DNS answer that arrived at the sandbox and matched its question.
    Dns,
    /// The server name in a TLS ClientHello: the client's claim.
    TlsSni,
    /// The server name in a ClientHello over QUIC: the client's claim.
    QuicSni,
    /// The host of an HTTP/1 request: the client's claim.
    HttpHost,
    /// The host that a SOCKS proxy was asked for: the client's claim.
    SocksHost,
    /// A name in the server's certificate, unverified: the server's claim.
    TlsCert,
}

/// One claim that a flow's peer bears a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEvidence {
    /// The name in lower case without a trailing dot.
    pub name: Arc<str>,
    /// Who claims it.
    pub source: NameSource,
    /// A client's claim: an accepted resolver answered this very name with this
    /// very address. A DNS entry: its resolver is accepted and the client
    /// claims the same name. A certificate's name: it covers the one that the
    /// client claims.
    pub agrees: bool,
    /// The resolver that answered, for [`NameSource::Dns`].
    pub resolver: Option<IpAddr>,
    /// Whether that resolver is an accepted one, for [`NameSource::Dns`].
    pub resolver_accepted: Option<bool>,
    /// When it was seen, in nanoseconds since 1970-01-01T00:00:00Z.
    pub observed_wall_ns: u64,
}

/// What is known about one peer's name.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) evidence: Vec<NameEvidence>,
    /// The best name: a claim that DNS backs, else a claim, else the only name
    /// that DNS gave.
    pub(crate) best: Option<Arc<str>>,
}

impl Known {
    /// The claims of which no DNS answer gave that name to the address.
    pub(crate) fn without_dns(&self) -> impl Iterator<Item = &NameEvidence> {
        let is_answer = |it: &&NameEvidence| it.source == NameSource::Dns;
        let is_answered = move |name: &str| {
            let mut answers = self.evidence.iter().filter(is_answer);
            answers.any(|answer| &*answer.name == name)
        };
        let mut claims = self.evidence.iter().filter(move |it| !is_answer(it));
        std::iter::from_fn(move || claims.find(|claim| !is_answered(&claim.name)))
    }
}

/// Names that DNS gave to addresses, bounded.
#[derive(Debug)]
pub(crate) struct NameBook {
    by_address: HashMap<IpAddr, Vec<Answered>>,
    /// Addresses in the order in which they came in.
    order: VecDeque<IpAddr>,
    max_addresses: usize,
    /// Names of all addresses together.
    names: usize,
    aliases: Aliases,
}

/// One name that one resolver gave to an address.
#[derive(Clone, Debug)]
struct Answered {
    name: Arc<str>,
    resolver: IpAddr,
    accepted: bool,
    at: Moment,
}

/// Names kept per address; large hosts serve more, but one sandbox asks for few.
const MAX_NAMES: usize = 32;
/// Bytes of text of one address's names, so that a record has room for all.
const MAX_NAMES_TEXT: usize = 16 * 1024;
/// Names kept in all, as a multiple of the addresses.
const NAMES_PER_ADDRESS: usize = 2;

impl NameBook {
    pub(crate) fn new(max_addresses: usize) -> Self {
        Self {
            by_address: HashMap::new(),
            order: VecDeque::new(),
            max_addresses: max_addresses.max(1),
            names: 0,
            aliases: Aliases::default(),
        }
    }

    /// A resolver answered that `target` stands for `name`, and gave no address.
    pub(crate) fn learn_alias(
        &mut self,
        target: &str,
        name: &Arc<str>,
        accepted: bool,
        at: Moment,
    ) {
        self.aliases.learn(target, name, accepted, at);
    }

    /// A resolver answered `name` with `address`, which is then also the address
    /// of the names for which it stands.
    pub(crate) fn learn(
        &mut self,
        address: IpAddr,
        name: &Arc<str>,
        resolver: IpAddr,
        accepted: bool,
        at: Moment,
    ) {
        self.learn_one(address, name, resolver, accepted, at);
        for owner in self.aliases.owners(name, accepted, at) {
            self.learn_one(address, &owner.name, resolver, owner.accepted, at);
        }
    }

    fn learn_one(
        &mut self,
        address: IpAddr,
        name: &Arc<str>,
        resolver: IpAddr,
        accepted: bool,
        at: Moment,
    ) {
        if !self.by_address.contains_key(&address) {
            while self.order.len() >= self.max_addresses
                || self.names >= self.max_addresses * NAMES_PER_ADDRESS
            {
                self.forget_oldest();
            }
            self.order.push_back(address);
        }
        let names = self.by_address.entry(address).or_default();
        let before = names.len();
        names.retain(|known| &known.name != name || known.resolver != resolver);
        while !names.is_empty()
            && (names.len() >= MAX_NAMES || text(names) + name.len() > MAX_NAMES_TEXT)
        {
            // An accepted resolver's word is not to be pushed out by others.
            let victim = names.iter().position(|known| !known.accepted);
            names.remove(victim.unwrap_or(0));
        }
        self.names = self.names + names.len() + 1 - before;
        names.push(Answered {
            name: Arc::clone(name),
            resolver,
            accepted,
            at,
        });
    }

    fn forget_oldest(&mut self) {
        if let Some(names) = self
            .order
            .pop_front()
            .and_then(|oldest| self.by_address.remove(&oldest))
        {
            self.names -= names.len();
        }
    }

    /// The names that DNS gave to an address, and those for which they stand by
    /// answers that came later.
    fn answered(&self, peer: IpAddr) -> Cow<'_, [Answered]> {
        let known = self.by_address.get(&peer).map_or(&[][..], Vec::as_slice);
        if known.is_empty() || self.aliases.is_empty() {
            return Cow::Borrowed(known);
        }
        let mut all = known.to_vec();
        for target in known {
            let owners = self
                .aliases
                .owners(&target.name, target.accepted, target.at);
            for owner in owners {
                let is_known = |it: &Answered| {
                    it.name == owner.name
                        && it.resolver == target.resolver
                        && it.accepted >= owner.accepted
                };
                let fits = all.len() < MAX_NAMES && text(&all) + owner.name.len() <= MAX_NAMES_TEXT;
                if fits && !all.iter().any(is_known) {
                    all.push(Answered {
                        name: owner.name,
                        resolver: target.resolver,
                        accepted: owner.accepted,
                        at: owner.at,
                    });
                }
            }
        }
        Cow::Owned(all)
    }

    /// What a client's claims are worth where no address says anything.
    pub(crate) fn claimed(claims: &[Claim]) -> Known {
        Self::new(1).evidence(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), claims)
    }

    /// All that is known about the name of a peer for which the client has
    /// these names.
    pub(crate) fn evidence(&self, peer: IpAddr, claims: &[Claim]) -> Known {
        let answered = self.answered(peer);
        let is_claimed = |known: &Answered| claims.iter().any(|claim| claim.name == known.name);
        let is_backed = |claim: &&Claim| {
            let mut answers = answered.iter().filter(|known| known.accepted);
            answers.any(|known| known.name == claim.name)
        };
        let answers = answered.iter().map(|known| NameEvidence {
            name: Arc::clone(&known.name),
            source: NameSource::Dns,
            agrees: known.accepted && is_claimed(known),
            resolver: Some(known.resolver),
            resolver_accepted: Some(known.accepted),
            observed_wall_ns: known.at.wall_ns,
        });
        let claimed = claims.iter().map(|claim| NameEvidence {
            name: Arc::clone(&claim.name),
            source: claim.source,
            agrees: is_backed(&claim),
            resolver: None,
            resolver_accepted: None,
            observed_wall_ns: claim.at.wall_ns,
        });
        let best = match (claims, &*answered) {
            ([first, ..], _) => {
                let best = claims.iter().find(is_backed).unwrap_or(first);
                Some(Arc::clone(&best.name))
            }
            ([], [first, others @ ..]) => others
                .iter()
                .all(|other| other.name == first.name)
                .then(|| Arc::clone(&first.name)),
            ([], []) => None,
        };
        Known {
            evidence: answers.chain(claimed).collect(),
            best,
        }
    }
}

/// Bytes of their text.
fn text(names: &[Answered]) -> usize {
    names.iter().map(|it| it.name.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 53));

    fn at(mono_us: u64) -> Moment {
        Moment {
            mono_us,
            wall_ns: mono_us * 1000,
        }
    }

    /// Learned names as `name` or, from a resolver that is not accepted, `?name`.
    #[track_caller]
    fn check(
        learned: &[&str],
        claim: Option<&str>,
        best: Option<&str>,
        agrees: &[bool],
        without: bool,
    ) {
        let mut book = NameBook::new(10);
        for (time, word) in (0..).zip(learned) {
            let name = word.trim_start_matches('?');
            book.learn(PEER, &name.into(), RESOLVER, name == *word, at(time));
        }
        let claims = claim.map(|name| Claim {
            name: name.into(),
            source: NameSource::TlsSni,
            at: at(99),
        });
        let known = book.evidence(PEER, claims.as_slice());
        assert_eq!(known.best.as_deref(), best);
        let agreement: Vec<_> = known.evidence.iter().map(|entry| entry.agrees).collect();
        assert_eq!(agreement, agrees);
        assert_eq!(known.without_dns().next().is_some(), without);
    }

    #[test]
    fn a_claim_agrees_only_with_an_accepted_answer_for_the_same_name() {
        check(&[], None, None, &[], false);
        check(&["a"], None, Some("a"), &[false], false);
        check(&["a", "b"], None, None, &[false, false], false);
        check(
            &["a", "b"],
            Some("b"),
            Some("b"),
            &[false, true, true],
            false,
        );
        check(&["?b"], Some("b"), Some("b"), &[false, false], false);
        check(&["a"], Some("b"), Some("b"), &[false, false], true);
        check(&[], Some("b"), Some("b"), &[false], true);
    }

    #[test]
    fn the_book_is_bounded_and_forgets_the_oldest() {
        let mut book = NameBook::new(2);
        for last in 0..5 {
            let address = IpAddr::from([198, 51, 100, last]);
            book.learn(address, &"a".into(), RESOLVER, true, at(0));
        }
        assert_eq!(book.by_address.len(), 2);
        assert!(book.evidence([198, 51, 100, 4].into(), &[]).best.is_some());
        for number in 0..100 {
            let name = format!("n{number}").into();
            book.learn(PEER, &name, RESOLVER, number == 0, at(0));
        }
        let known = book.evidence(PEER, &[]);
        assert_eq!(known.evidence.len(), MAX_NAMES);
        assert_eq!(&*known.evidence[0].name, "n0", "an accepted answer stays");
    }
}
