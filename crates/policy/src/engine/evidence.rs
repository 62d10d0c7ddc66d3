//! Who says what the peer's name is, and how well that is proven.

use super::Engine;
use super::reason::Shown;
use crate::host::HostName;
use crate::manifest::MinEvidence;
use sandtrace_event::{Flow, NameEvidence, NameSource};

/// How well it is proven that a rule's destination is the flow's peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    /// Only a resolver that is not accepted says so.
    Unproven,
    /// The client says so.
    Claimed,
    /// An accepted resolver says so.
    Dns,
    /// The client and an accepted resolver say so.
    Consistent,
    /// The rule names the address itself.
    Address,
}

impl Strength {
    pub(super) fn meets(self, minimum: MinEvidence) -> bool {
        self >= match minimum {
            MinEvidence::Claimed => Self::Claimed,
            MinEvidence::Dns => Self::Dns,
            MinEvidence::Consistent => Self::Consistent,
        }
    }
}

/// A name that a rule can match.
pub(super) struct Named<'a> {
    pub(super) name: HostName<'a>,
    pub(super) strength: Strength,
    /// The client itself claims it.
    pub(super) claim: bool,
}

/// All that is known of a peer's name.
pub(super) struct Evidence<'a> {
    pub(super) names: Vec<Named<'a>>,
    /// The client claims a name, well-formed or not.
    pub(super) claimed: bool,
    /// One of its claims is backed by an accepted resolver.
    pub(super) settled: bool,
}

impl Engine {
    pub(super) fn evidence<'a>(&self, flow: &'a Flow) -> Evidence<'a> {
        let mut evidence = Evidence {
            names: Vec::with_capacity(flow.names.len()),
            claimed: false,
            settled: false,
        };
        for entry in &flow.names {
            // What a server says of itself, and nobody verified, names nothing.
            if entry.source == NameSource::TlsCert {
                continue;
            }
            let claim = entry.source != NameSource::Dns;
            let strength = self.strength(entry, flow);
            evidence.claimed |= claim;
            if let Some(name) = HostName::new(&entry.name) {
                evidence.settled |= claim && strength == Strength::Consistent;
                evidence.names.push(Named {
                    name,
                    strength,
                    claim,
                });
            }
        }
        evidence
    }

    fn strength(&self, entry: &NameEvidence, flow: &Flow) -> Strength {
        if entry.source == NameSource::Dns {
            return if self.answered_by_accepted(entry) {
                Strength::Dns
            } else {
                Strength::Unproven
            };
        }
        let same = |other: &&NameEvidence| {
            other.source == NameSource::Dns && other.name.eq_ignore_ascii_case(&entry.name)
        };
        let mut answers = flow.names.iter().filter(same).peekable();
        // The list is bounded: an answer that it no longer holds still counts.
        let backed = match answers.peek() {
            Some(_) => answers.any(|answer| self.answered_by_accepted(answer)),
            None => entry.agrees,
        };
        if backed {
            Strength::Consistent
        } else {
            Strength::Claimed
        }
    }

    fn answered_by_accepted(&self, entry: &NameEvidence) -> bool {
        !entry.discounted
            && entry
                .resolver
                .is_some_and(|resolver| self.accepts(resolver))
    }
}

impl Evidence<'_> {
    /// Whether a name speaks for an allow rule. Once the client named its
    /// host and DNS agrees, other names of a shared address do not; for a
    /// deny rule every name speaks.
    pub(super) fn speaks_for_allow(&self, named: &Named<'_>) -> bool {
        named.claim || !self.settled
    }

    /// Claims that cannot all be true.
    pub(super) fn contradictions(&self, objections: &mut Vec<String>) {
        let mut claims = self.names.iter().filter(|named| named.claim);
        if let Some(first) = claims.next()
            && let Some(other) = claims.find(|other| other.name != first.name)
        {
            let [first, other] = [first, other].map(|named| Shown(named.name.as_str()));
            objections.push(format!("the client names two hosts, {first} and {other}"));
        }
        let answered = || {
            self.names
                .iter()
                .filter(|named| !named.claim && named.strength == Strength::Dns)
        };
        let lonely = |named: &&Named<'_>| named.claim && named.strength == Strength::Claimed;
        if let Some(answer) = answered().next()
            && let Some(claim) = self.names.iter().find(lonely)
        {
            objections.push(format!(
                "the client names {}, but for this address DNS answered {}",
                Shown(claim.name.as_str()),
                Shown(answer.name.as_str()),
            ));
        }
    }
}

/// Why a name is not proven well enough, and what would help.
pub(super) fn too_weak(name: &str, strength: Strength, minimum: MinEvidence) -> String {
    let name = Shown(name);
    match (strength, minimum) {
        (Strength::Unproven, _) => format!(
            "only a resolver that is not accepted calls this address {name}; \
             list it under `resolvers:` if its word counts"
        ),
        (Strength::Claimed, _) => {
            format!(
                "the client names {name}, but no accepted resolver's answer for this address agrees"
            )
        }
        _ => format!(
            "DNS calls this address {name}, but the client does not; where its protocol \
             names no host, set min_name_evidence: dns"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_ordered() {
        let order = [
            Strength::Unproven,
            Strength::Claimed,
            Strength::Dns,
            Strength::Consistent,
            Strength::Address,
        ];
        assert!(order.is_sorted());
        assert!(!Strength::Unproven.meets(MinEvidence::Claimed));
        assert!(!Strength::Dns.meets(MinEvidence::Consistent));
        assert!(Strength::Address.meets(MinEvidence::Consistent));
    }
}
