//! Rules that could never decide, because earlier ones take all they match.
//!
//! Finds the simple cases: every destination (path, name) of a rule lies
//! within one destination of one earlier rule of its type.

use crate::error::{Problem, Problems};
use crate::host::HostPattern;
use crate::manifest::{Body, Network, Peer, Rule, RuleType, Who};
use crate::path::PathPattern;
use crate::yaml::Mark;
use std::collections::HashMap;

/// Reports each unreachable rule at its place.
pub(crate) fn check(rules: &[Rule], marks: &[Mark], problems: &mut Problems) {
    let mut seen = Seen::default();
    for (index, (rule, &at)) in rules.iter().zip(marks).enumerate() {
        if let Some(first) = seen.covering(rule).and_then(|index| rules.get(index)) {
            let message = format!("rule {:?} can never decide", rule.id);
            let hint = format!("{:?} before it matches all that it matches", first.id);
            problems.push(Problem::new(at, message).suggest(hint));
        }
        seen.add(index, rule);
    }
}

/// A pattern of an earlier rule, with its port and protocol where it has any.
type SeenHost<'a> = (usize, &'a HostPattern, Option<&'a Peer>);

/// What earlier rules match, so that a rule is compared with few of them.
#[derive(Default)]
struct Seen<'a> {
    /// By type and the literal end of the pattern.
    hosts: HashMap<(&'static str, String), Vec<SeenHost<'a>>>,
    ranges: HashMap<&'static str, Vec<(usize, &'a Peer)>>,
    paths: Vec<(usize, &'a PathPattern)>,
}

impl<'a> Seen<'a> {
    fn add(&mut self, index: usize, rule: &'a Rule) {
        let kind = crate::manifest::word::<RuleType>(rule.body.rule_type());
        match &rule.body {
            Body::Egress(network) | Body::Ingress(network) => self.add_peers(index, kind, network),
            Body::Files(files) => self
                .paths
                .extend(files.paths.iter().map(|path| (index, path))),
            Body::Syscalls(_) => {}
            Body::Dns(names) => {
                for name in names {
                    self.hosts
                        .entry((kind, name.suffix()))
                        .or_default()
                        .push((index, name, None));
                }
            }
        }
    }

    fn add_peers(&mut self, index: usize, kind: &'static str, network: &'a Network) {
        for peer in &network.peers {
            match &peer.who {
                Who::Range(_) => self.ranges.entry(kind).or_default().push((index, peer)),
                Who::Host(host) => {
                    let key = (kind, host.suffix());
                    self.hosts
                        .entry(key)
                        .or_default()
                        .push((index, host, Some(peer)));
                }
            }
        }
    }

    /// An earlier rule (the last needed one) if all of `rule` is covered.
    fn covering(&self, rule: &Rule) -> Option<usize> {
        let kind = crate::manifest::word::<RuleType>(rule.body.rule_type());
        match &rule.body {
            Body::Egress(network) | Body::Ingress(network) => last_of(
                network
                    .peers
                    .iter()
                    .map(|peer| self.covering_peer(kind, peer)),
            ),
            Body::Files(files) => last_of(files.paths.iter().map(|path| {
                let covers = |(_, own): &&(usize, &PathPattern)| own.covers(path);
                self.paths.iter().find(covers).map(|(index, _)| *index)
            })),
            // Their lists add up rather than shadow each other.
            Body::Syscalls(_) => None,
            Body::Dns(names) => last_of(
                names
                    .iter()
                    .map(|name| self.covering_host(kind, name, None)),
            ),
        }
    }

    fn covering_peer(&self, kind: &'static str, peer: &Peer) -> Option<usize> {
        match &peer.who {
            Who::Host(host) => self.covering_host(kind, host, Some(peer)),
            Who::Range(_) => {
                let mut ranges = self.ranges.get(kind)?.iter();
                ranges
                    .find(|(_, own)| own.covers(peer))
                    .map(|(index, _)| *index)
            }
        }
    }

    fn covering_host(
        &self,
        kind: &'static str,
        host: &HostPattern,
        peer: Option<&Peer>,
    ) -> Option<usize> {
        let mut suffix = Some(host.suffix());
        while let Some(key) = suffix {
            suffix = match key.split_once('.') {
                Some((_, rest)) => Some(rest.to_owned()),
                None if key.is_empty() => None,
                None => Some(String::new()),
            };
            let covers = |(_, own, own_peer): &&SeenHost<'_>| match (own_peer, peer) {
                (Some(own_peer), Some(peer)) => own_peer.covers(peer),
                _ => own.covers(host),
            };
            let found = self
                .hosts
                .get(&(kind, key))
                .and_then(|own| own.iter().find(covers));
            if let Some((index, ..)) = found {
                return Some(*index);
            }
        }
        None
    }
}

/// The greatest, if there is none missing.
fn last_of(mut covering: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    let first = covering.next()??;
    covering.try_fold(first, |last, index| Some(last.max(index?)))
}
