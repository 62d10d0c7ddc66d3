//! Judging DNS questions.

use super::builtin::DNS_PORT;
use super::reason::Shown;
use super::{Engine, allow, anomaly, deny, fallback};
use crate::Policy;
use crate::host::HostName;
use crate::manifest::{Action, Body, Rule, Who};
use sandtrace_event::{DnsQuery, Verdict};
use std::net::SocketAddr;

impl Engine {
    /// An accepted resolver may be asked for names that a rule lets the
    /// sandbox look up or connect to.
    pub(super) fn dns(&self, query: &DnsQuery) -> Verdict {
        let name = Shown(&query.name);
        if !self.accepts(query.resolver) || query.resolver_port != DNS_PORT {
            let resolver = match query.resolver_port {
                DNS_PORT => query.resolver.to_string(),
                port => SocketAddr::new(query.resolver, port).to_string(),
            };
            return deny(
                None,
                format!("resolver {resolver} is not an accepted one (asked for {name})"),
            );
        }
        let rule = HostName::new(&query.name).and_then(|name| first_rule(&self.policy, &name));
        let Some(rule) = rule else {
            return self.unmatched_name(&query.name);
        };
        match rule.action {
            Action::Deny => deny(Some(&rule.id), format!("the rule denies host {name}")),
            Action::Allow if answer_unasked(query) => {
                let resolver = query.resolver;
                anomaly(
                    &rule.id,
                    format!("an answer for {name} from {resolver} that nobody asked for"),
                )
            }
            Action::Allow if !query.findings.is_empty() => anomaly(
                &rule.id,
                format!("questions such as {name} look like data on its way out"),
            ),
            Action::Allow => allow(&rule.id, format!("host {name} is one that the rule names")),
        }
    }

    fn unmatched_name(&self, name: &str) -> Verdict {
        let index = &self.policy.index;
        if index.names.is_empty() && index.egress.is_empty() {
            let value = self.policy.manifest.defaults.network;
            return fallback("network", value, &format!("looking up {}", Shown(name)));
        }
        deny(None, format!("no rule names host {}", Shown(name)))
    }
}

/// An answer that matches no question, unlike a question without an answer.
fn answer_unasked(query: &DnsQuery) -> bool {
    !query.matched && (query.rcode.is_some() || !query.answers.is_empty())
}

fn first_rule<'p>(policy: &'p Policy, name: &HostName<'_>) -> Option<&'p Rule> {
    let index = &policy.index;
    let candidates = index
        .names
        .candidates(name)
        .chain(index.egress.hosts.candidates(name));
    let matching = candidates.filter(|slot| {
        let rule = policy.manifest.rules.get(slot.rule);
        rule.is_some_and(|rule| decides(rule, slot.item, name))
    });
    policy
        .manifest
        .rules
        .get(matching.map(|slot| slot.rule).min()?)
}

/// Whether an item of a rule says something of looking up a name.
fn decides(rule: &Rule, item: usize, name: &HostName<'_>) -> bool {
    match &rule.body {
        Body::Dns(patterns) => patterns
            .get(item)
            .is_some_and(|pattern| pattern.matches(name)),
        Body::Egress(network) => network.peers.get(item).is_some_and(|peer| {
            // To deny one port of a host is not to deny its name.
            let whole_host = peer.ports.is_none() && peer.protocol.is_none();
            (rule.action == Action::Allow || whole_host)
                && matches!(&peer.who, Who::Host(pattern) if pattern.matches(name))
        }),
        Body::Ingress(_) | Body::Files(_) | Body::Syscalls(_) => false,
    }
}
