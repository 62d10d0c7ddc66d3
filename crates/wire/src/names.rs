//! Names of addresses, as evidence.

mod aliases;
mod shelf;

use crate::claims::Claim;
use crate::packet::Moment;
use aliases::Aliases;
use shelf::{Shelf, has_room};
use std::borrow::Cow;
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
    /// This answer vouches for nothing, whoever gave it: it came from a port that
    /// is not for DNS, or another answer to the same question contradicts it.
    pub discounted: bool,
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
    /// DNS may have given the address names that are forgotten.
    pub(crate) forgotten: bool,
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

/// Who answered, and what that is worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    pub(crate) resolver: IpAddr,
    pub(crate) accepted: bool,
    pub(crate) discounted: bool,
}

/// Names that DNS gave to addresses, bounded.
#[derive(Debug)]
pub(crate) struct NameBook {
    accepted: Shelf,
    /// Apart, so that whoever is not accepted has nothing else forgotten.
    others: Shelf,
    aliases: Aliases,
}

/// One name that one resolver gave to an address.
#[derive(Clone, Debug)]
struct Answered {
    name: Arc<str>,
    resolver: IpAddr,
    accepted: bool,
    discounted: bool,
    at: Moment,
}

impl NameBook {
    pub(crate) fn new(max_addresses: usize) -> Self {
        Self {
            accepted: Shelf::new(max_addresses),
            others: Shelf::new(max_addresses),
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
    pub(crate) fn learn(&mut self, address: IpAddr, name: &Arc<str>, voice: Voice, at: Moment) {
        self.learn_one(address, name, voice, at);
        for owner in self.aliases.owners(name, voice.accepted, at) {
            let accepted = owner.accepted;
            self.learn_one(address, &owner.name, Voice { accepted, ..voice }, at);
        }
    }

    fn learn_one(&mut self, address: IpAddr, name: &Arc<str>, voice: Voice, at: Moment) {
        let shelf = match voice.accepted {
            true => &mut self.accepted,
            false => &mut self.others,
        };
        shelf.learn(
            address,
            Answered {
                name: Arc::clone(name),
                resolver: voice.resolver,
                accepted: voice.accepted,
                discounted: voice.discounted,
                at,
            },
        );
    }

    /// A resolver's answer that `address` bears `name` vouches for nothing from
    /// now on. That somebody said so is kept.
    pub(crate) fn discount(&mut self, address: IpAddr, name: &str, resolver: IpAddr, at: Moment) {
        // Those for which it stands had the address from the same answer.
        let owners = self.aliases.owners(&Arc::from(name), true, at);
        let of = |known: &Answered| {
            let is_owner = || owners.iter().any(|owner| owner.name == known.name);
            known.resolver == resolver && (&*known.name == name || is_owner())
        };
        for mut answered in self.accepted.take(address, of) {
            (answered.accepted, answered.discounted) = (false, true);
            self.others.learn(address, answered);
        }
    }

    /// A conversation with the address is reported.
    pub(crate) fn touch(&mut self, address: IpAddr) {
        self.accepted.touch(address);
        self.others.touch(address);
    }

    /// The names that DNS gave to an address, and those for which they stand by
    /// answers that came later.
    fn answered(&self, peer: IpAddr) -> Cow<'_, [Answered]> {
        let (known, others) = (self.accepted.names(peer), self.others.names(peer));
        if others.is_empty() && (known.is_empty() || self.aliases.is_empty()) {
            return Cow::Borrowed(known);
        }
        let mut all = known.to_vec();
        for other in others {
            if has_room(&all, other) {
                all.push(other.clone());
            }
        }
        for target in known.iter().chain(others) {
            let owners = self
                .aliases
                .owners(&target.name, target.accepted, target.at);
            for owner in owners {
                let is_known = |it: &Answered| {
                    it.name == owner.name
                        && it.resolver == target.resolver
                        && it.accepted >= owner.accepted
                };
                if all.iter().any(is_known) {
                    continue;
                }
                let named = Answered {
                    name: owner.name,
                    resolver: target.resolver,
                    accepted: owner.accepted,
                    discounted: target.discounted,
                    at: owner.at,
                };
                if has_room(&all, &named) {
                    all.push(named);
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
            discounted: known.discounted,
            observed_wall_ns: known.at.wall_ns,
        });
        let claimed = claims.iter().map(|claim| NameEvidence {
            name: Arc::clone(&claim.name),
            source: claim.source,
            agrees: is_backed(&claim),
            resolver: None,
            resolver_accepted: None,
            discounted: false,
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
            forgotten: self.has_forgotten(peer),
        }
    }

    /// Whether a name of the address may be missing: it was forgotten, or there is
    /// no room for all. Where an accepted resolver's word stands, others' are not
    /// missed: the sandbox has as many of those as it likes.
    fn has_forgotten(&self, peer: IpAddr) -> bool {
        let (known, others) = (self.accepted.names(peer), self.others.names(peer));
        let said_otherwise = known.is_empty() || !others.is_empty();
        known.len() + others.len() > shelf::MAX_NAMES
            || self.accepted.may_have_forgotten(peer)
            || (said_otherwise && self.others.may_have_forgotten(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 53));

    fn voice(accepted: bool) -> Voice {
        Voice {
            resolver: RESOLVER,
            accepted,
            discounted: false,
        }
    }

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
            book.learn(PEER, &name.into(), voice(name == *word), at(time));
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

    fn address(number: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, number])
    }

    #[test]
    fn the_book_is_bounded_and_forgets_what_is_not_used() {
        let mut book = NameBook::new(2);
        for number in 0..5 {
            book.learn(address(number), &"a".into(), voice(true), at(0));
            book.touch(address(0));
        }
        assert_eq!(book.accepted.addresses(), 2);
        for (number, known) in [(0, true), (3, false), (4, true)] {
            let found = book.evidence(address(number), &[]);
            assert_eq!(found.best.is_some(), known);
            assert_eq!(found.forgotten, !known);
        }
        for _ in 0..1000 {
            book.touch(address(0));
            book.touch(address(4));
        }
        book.learn(address(9), &"a".into(), voice(true), at(0));
        assert!(book.evidence(address(0), &[]).best.is_none());
    }

    #[test]
    fn who_is_not_accepted_has_only_its_like_forgotten() {
        let mut book = NameBook::new(2);
        book.learn(address(0), &"a".into(), voice(true), at(0));
        for number in 1..100 {
            book.learn(address(number), &"b".into(), voice(false), at(0));
        }
        let known = book.evidence(address(0), &[]);
        assert!(known.best.is_some() && !known.forgotten);
        assert!(book.evidence(address(1), &[]).forgotten);
        let mut book = NameBook::new(9);
        for number in 0..100 {
            let name = format!("n{number}").into();
            book.learn(PEER, &name, voice(number == 0), at(0));
        }
        let known = book.evidence(PEER, &[]);
        assert_eq!(known.evidence.len(), shelf::MAX_NAMES);
        assert_eq!(&*known.evidence[0].name, "n0", "an accepted answer stays");
        assert!(known.forgotten);
    }

    #[test]
    fn what_is_contradicted_vouches_for_nothing_and_is_kept() {
        let mut book = NameBook::new(2);
        book.learn_alias("a", &"shop".into(), true, at(0));
        book.learn(PEER, &"a".into(), voice(true), at(0));
        book.discount(PEER, "a", RESOLVER, at(0));
        for name in ["a", "shop"] {
            let claim = Claim {
                name: name.into(),
                source: NameSource::TlsSni,
                at: at(1),
            };
            let known = book.evidence(PEER, std::slice::from_ref(&claim));
            assert_eq!(known.evidence.len(), 3);
            assert!(known.evidence.iter().all(|it| !it.agrees));
            assert!(known.evidence[0].discounted);
        }
    }
}
