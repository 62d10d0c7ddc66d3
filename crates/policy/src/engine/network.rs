//! Judging conversations.

use super::evidence::{Evidence, Strength, too_weak};
use super::findings::{self, Basis};
use super::reason::{endpoint, grouped, protocol};
use super::{Engine, Judgement, Unbounded as _, deny, fallback, unless};
use crate::Policy;
use crate::index::Slot;
use crate::manifest::{Action, Body, Ech, MinEvidence, Network, Peer, PrivateAddresses, Rule, Who};
use sandtrace_event::{Flow, Limits, Verdict};

/// The rule that decides, and how it came to match.
struct Hit<'p> {
    slot: Slot,
    rule: &'p Rule,
    network: &'p Network,
    peer: &'p Peer,
    strength: Strength,
    /// The name, or the address as text.
    host: String,
}

/// A match of which only the place is known.
#[derive(Clone, Copy)]
struct Candidate {
    slot: Slot,
    strength: Strength,
    /// Which of the evidence's names; `None` for the address.
    name: Option<usize>,
}

impl Engine {
    pub(super) fn egress(&mut self, flow: &Flow) -> Judgement {
        let policy = self.policy.clone();
        let evidence = self.evidence(flow);
        match find_egress(&policy, flow, &evidence) {
            Some(hit) => self.decide(flow, &hit, Some(&evidence)),
            None => {
                self.connections.release_except(None, flow.flow_id.0);
                self.builtin_egress(flow)
                    .unwrap_or_else(|| self.unmatched_egress(flow).unbounded())
            }
        }
    }

    pub(super) fn ingress(&mut self, flow: &Flow) -> Judgement {
        let policy = self.policy.clone();
        match find_ingress(&policy, flow) {
            Some(hit) => self.decide(flow, &hit, None),
            None => {
                self.connections.release_except(None, flow.flow_id.0);
                self.builtin_ingress(flow)
                    .unwrap_or_else(|| self.unmatched_ingress(flow).unbounded())
            }
        }
    }

    /// Applies the rule that matched. `evidence` is absent where names say
    /// nothing.
    fn decide(&mut self, flow: &Flow, hit: &Hit<'_>, evidence: Option<&Evidence<'_>>) -> Judgement {
        let subject = subject(flow, &hit.host, evidence.is_none());
        if hit.rule.action == Action::Deny {
            self.connections.release_except(None, flow.flow_id.0);
            let how = how_denied(hit.strength);
            return deny(
                Some(&hit.rule.id),
                format!("the rule denies {subject}{how}"),
            )
            .unbounded();
        }
        let minimum = hit
            .network
            .min_name_evidence
            .unwrap_or(self.policy.manifest.defaults.min_name_evidence);
        let mut objections = Vec::new();
        exceeded(flow, hit.network, &subject, &mut objections);
        self.too_many(flow, hit, &subject, &mut objections);
        let silent = evidence.is_some_and(|evidence| nothing_sent(flow, evidence));
        let provisional =
            silent && hit.strength == Strength::Dns && minimum == MinEvidence::Consistent;
        if hit.strength != Strength::Address {
            if !provisional && !hit.strength.meets(minimum) {
                objections.push(too_weak(&hit.host, hit.strength, minimum));
            }
            if let Some(evidence) = evidence {
                evidence.contradictions(&mut objections);
            }
        }
        let defaults = self.policy.manifest.defaults;
        let basis = Basis {
            hosts_denied: self.policy.index.hosts_denied,
            ..basis(hit, minimum, defaults.private_addresses)
        };
        findings::objections(flow, basis, &mut objections);
        if basis.by_name
            && defaults.ech == Ech::Anomaly
            && flow.tls.as_ref().is_some_and(|it| it.ech)
        {
            objections.push(
                "the TLS hello has a part that is encrypted, which may name another host"
                    .to_owned(),
            );
        }
        let reason = || how_allowed(&subject, hit.strength, provisional);
        Judgement {
            verdict: Some(unless(&hit.rule.id, &objections, reason)),
            limits: Limits {
                max_bytes_per_call: hit.network.max_bytes_per_call,
                max_bytes_total: hit.network.max_bytes_total,
            },
        }
    }

    fn too_many(
        &mut self,
        flow: &Flow,
        hit: &Hit<'_>,
        subject: &str,
        objections: &mut Vec<String>,
    ) {
        let flow_id = flow.flow_id.0;
        let Some(limit) = hit.network.max_connections else {
            self.connections.release_except(None, flow_id);
            return;
        };
        if !self
            .connections
            .admit(hit.slot.rule, flow_id, flow.phase, limit)
        {
            let limit = grouped(limit.into());
            objections.push(format!(
                "more than {limit} connections at the same time to {subject}"
            ));
        }
    }

    fn unmatched_egress(&self, flow: &Flow) -> Verdict {
        let subject = subject(flow, &flow.dst_host, false);
        if self.policy.index.egress.is_empty() {
            let value = self.policy.manifest.defaults.network;
            return fallback("network", value, &format!("traffic to {subject}"));
        }
        deny(None, format!("no rule matches host {subject}"))
    }

    fn unmatched_ingress(&self, flow: &Flow) -> Verdict {
        let subject = subject(flow, &flow.dst_host, true);
        if self.policy.index.ingress.is_empty() {
            let value = self.policy.manifest.defaults.network;
            return fallback(
                "network",
                value,
                &format!("traffic from outside, {subject}"),
            );
        }
        deny(None, format!("no rule matches {subject}"))
    }
}

fn find_egress<'p>(policy: &'p Policy, flow: &Flow, evidence: &Evidence<'_>) -> Option<Hit<'p>> {
    let mut best: Option<Candidate> = None;
    for (index, named) in evidence.names.iter().enumerate() {
        for slot in policy.index.egress.hosts.candidates(&named.name) {
            let candidate = Candidate {
                slot,
                strength: named.strength,
                name: Some(index),
            };
            if !precedes(candidate, best) {
                continue;
            }
            let Some((rule, _, peer)) = resolve(policy, slot) else {
                continue;
            };
            let speaks = rule.action == Action::Deny || evidence.speaks_for_allow(named);
            let matches = matches!(&peer.who, Who::Host(host) if host.matches(&named.name));
            if speaks && matches && peer.takes(flow.protocol, flow.dst_port) {
                best = Some(candidate);
            }
        }
    }
    let address = flow.dst_ip.into_iter();
    for slot in address.flat_map(|address| policy.index.egress.holding(address)) {
        consider_address(policy, flow, slot, flow.dst_port, &mut best);
    }
    let best = best?;
    let name = best.name.and_then(|index| evidence.names.get(index));
    let host = name.map_or_else(
        || address_text(flow),
        |named| named.name.as_str().to_owned(),
    );
    hit(policy, best, host)
}

/// The outside began: its address counts, and the sandbox's port.
fn find_ingress<'p>(policy: &'p Policy, flow: &Flow) -> Option<Hit<'p>> {
    let mut best = None;
    for slot in policy.index.ingress.holding(flow.dst_ip?) {
        consider_address(policy, flow, slot, flow.src_port, &mut best);
    }
    hit(policy, best?, address_text(flow))
}

fn consider_address(
    policy: &Policy,
    flow: &Flow,
    slot: Slot,
    port: Option<u16>,
    best: &mut Option<Candidate>,
) {
    let candidate = Candidate {
        slot,
        strength: Strength::Address,
        name: None,
    };
    let takes = |(_, _, peer): (_, _, &Peer)| peer.takes(flow.protocol, port);
    if precedes(candidate, *best) && resolve(policy, slot).is_some_and(takes) {
        *best = Some(candidate);
    }
}

/// The first rule decides; within it, what is proven best.
fn precedes(candidate: Candidate, best: Option<Candidate>) -> bool {
    best.is_none_or(|best| {
        candidate.slot.rule < best.slot.rule
            || (candidate.slot.rule == best.slot.rule && candidate.strength > best.strength)
    })
}

fn resolve(policy: &Policy, slot: Slot) -> Option<(&Rule, &Network, &Peer)> {
    let rule = policy.manifest.rules.get(slot.rule)?;
    match &rule.body {
        Body::Egress(network) | Body::Ingress(network) => {
            Some((rule, network, network.peers.get(slot.item)?))
        }
        Body::Files(_) | Body::Dns(_) | Body::Syscalls(_) => None,
    }
}

fn hit(policy: &Policy, best: Candidate, host: String) -> Option<Hit<'_>> {
    let (rule, network, peer) = resolve(policy, best.slot)?;
    Some(Hit {
        slot: best.slot,
        rule,
        network,
        peer,
        strength: best.strength,
        host,
    })
}

fn address_text(flow: &Flow) -> String {
    match flow.dst_ip {
        Some(address) => address.to_canonical().to_string(),
        None => flow.dst_host.clone(),
    }
}

/// No byte was sent that could name a host, and none can have been missed.
fn nothing_sent(flow: &Flow, evidence: &Evidence<'_>) -> bool {
    flow.bytes_sent.0 == 0 && flow.missed_bytes_sent.0 == 0 && !evidence.claimed
}

fn basis(hit: &Hit<'_>, minimum: MinEvidence, private: PrivateAddresses) -> Basis {
    Basis {
        names_stay_outside: private == PrivateAddresses::ByAddress,
        by_name: hit.strength != Strength::Address,
        by_single_address: matches!(&hit.peer.who, Who::Range(range) if range.is_single()),
        claim_suffices: minimum == MinEvidence::Claimed,
        bounds_bytes: hit.network.max_bytes_per_call.is_some()
            || hit.network.max_bytes_total.is_some(),
        hosts_denied: false,
    }
}

/// Bytes over the rule's bounds. What the capture missed counts as sent.
fn exceeded(flow: &Flow, network: &Network, subject: &str, objections: &mut Vec<String>) {
    let missed = flow.missed_bytes_sent.0;
    let mut check = |bytes: u64, limit: Option<u64>, place: &dyn Fn() -> String| {
        let Some(limit) = limit.filter(|limit| bytes.saturating_add(missed) > *limit) else {
            return;
        };
        let [shown, shown_limit] = [bytes, limit].map(grouped);
        let place = place();
        objections.push(if bytes > limit {
            format!("payload {shown} B exceeds {shown_limit} B {place}")
        } else {
            let missed = grouped(missed);
            format!("payload {shown} B may exceed {shown_limit} B {place}: the capture missed {missed} B")
        });
    };
    check(flow.max_call_bytes.0, network.max_bytes_per_call, &|| {
        let call = flow.max_call.0.max(1);
        format!("for {subject}, call {call} of this connection")
    });
    check(flow.bytes_sent.0, network.max_bytes_total, &|| {
        format!("for {subject} in all")
    });
}

/// `api.stripe.com:443`; from outside `192.0.2.1 to port 22`.
fn subject(flow: &Flow, host: &str, from_outside: bool) -> String {
    if !from_outside {
        return endpoint(host, flow);
    }
    match flow.src_port {
        Some(port) => format!("{} to port {port}", super::Shown(host)),
        None => format!("{} ({})", super::Shown(host), protocol(flow)),
    }
}

fn how_denied(strength: Strength) -> &'static str {
    match strength {
        Strength::Unproven => ", so named by a resolver that is not accepted",
        Strength::Claimed => ", so named by the client",
        Strength::Dns => ", so named by DNS",
        Strength::Consistent | Strength::Address => "",
    }
}

fn how_allowed(subject: &str, strength: Strength, provisional: bool) -> String {
    let how = match strength {
        _ if provisional => "named by DNS; provisional while nothing is sent",
        Strength::Address => "allowed by address",
        Strength::Consistent => "named by the client and by DNS",
        Strength::Dns => "named by DNS",
        Strength::Claimed | Strength::Unproven => "named by the client",
    };
    format!("{subject}, {how}")
}
