//! Tables that find the rules for a name, an address or a path without
//! trying every rule.

use crate::cidr::masked;
use crate::host::{HostName, HostPattern};
use crate::manifest::{Action, Body, Manifest, Network, Peer, Rule, Who};
use crate::path::PathPattern;
use globset::{Candidate, Glob, GlobBuilder, GlobSet};
use std::collections::HashMap;
use std::net::IpAddr;

/// An item of a rule: a destination, source, name or path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The rule, counted from 0.
    pub(crate) rule: usize,
    /// The item within the rule, counted from 0.
    pub(crate) item: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) egress: PeerIndex,
    pub(crate) ingress: PeerIndex,
    pub(crate) names: HostIndex,
    pub(crate) paths: PathIndex,
    /// A rule denies conversations with hosts by their names.
    pub(crate) hosts_denied: bool,
}

impl Index {
    pub(crate) fn new(manifest: &Manifest) -> Result<Self, globset::Error> {
        let mut egress = PeerIndex::default();
        let mut ingress = PeerIndex::default();
        let mut names = HostIndex::default();
        let mut paths = PathIndexBuilder::default();
        for (rule, body) in manifest.rules.iter().map(|rule| &rule.body).enumerate() {
            match body {
                Body::Egress(network) => egress.add(rule, network),
                Body::Ingress(network) => ingress.add(rule, network),
                Body::Dns(patterns) => {
                    for (item, pattern) in patterns.iter().enumerate() {
                        names.add(Slot { rule, item }, pattern);
                    }
                }
                // Few, and judged by their names: looked at one by one.
                Body::Syscalls(_) => {}
                Body::Files(files) => {
                    for pattern in &files.paths {
                        paths.add(rule, pattern)?;
                    }
                }
            }
        }
        Ok(Self {
            egress,
            ingress,
            names,
            paths: paths.build()?,
            hosts_denied: manifest.rules.iter().any(denies_hosts),
        })
    }
}

fn denies_hosts(rule: &Rule) -> bool {
    let by_name = |peer: &Peer| matches!(peer.who, Who::Host(_));
    rule.action == Action::Deny
        && matches!(&rule.body, Body::Egress(network) if network.peers.iter().any(by_name))
}

/// Host patterns by their literal end.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostIndex(HashMap<Box<str>, Vec<Slot>>);

impl HostIndex {
    fn add(&mut self, slot: Slot, pattern: &HostPattern) {
        self.0
            .entry(pattern.suffix().into())
            .or_default()
            .push(slot);
    }

    /// Items whose pattern may match the name; the pattern itself decides.
    pub(crate) fn candidates(&self, name: &HostName<'_>) -> impl Iterator<Item = Slot> {
        name.suffixes()
            .filter_map(|suffix| self.0.get(suffix))
            .flatten()
            .copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Peers by name and by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerIndex {
    pub(crate) hosts: HostIndex,
    /// One table for every prefix length (of either family) in use.
    ranges: Vec<(u8, HashMap<IpAddr, Vec<Slot>>)>,
}

impl PeerIndex {
    fn add(&mut self, rule: usize, network: &Network) {
        for (item, peer) in network.peers.iter().enumerate() {
            let slot = Slot { rule, item };
            match &peer.who {
                Who::Host(pattern) => self.hosts.add(slot, pattern),
                Who::Range(range) => {
                    let table = self.table(range.prefix());
                    table.entry(range.network()).or_default().push(slot);
                }
            }
        }
    }

    fn table(&mut self, prefix: u8) -> &mut HashMap<IpAddr, Vec<Slot>> {
        let at = match self.ranges.binary_search_by_key(&prefix, |(own, _)| *own) {
            Ok(at) => at,
            Err(at) => {
                self.ranges.insert(at, (prefix, HashMap::new()));
                at
            }
        };
        // `at` was found or inserted just now.
        #[expect(clippy::indexing_slicing, reason = "the entry was found or made above")]
        &mut self.ranges[at].1
    }

    /// Items whose range holds the address.
    pub(crate) fn holding(&self, address: IpAddr) -> impl Iterator<Item = Slot> {
        let address = address.to_canonical();
        self.ranges
            .iter()
            // A prefix longer than the address would be that of the other family.
            .filter(move |(prefix, _)| address.is_ipv6() || *prefix <= 32)
            .filter_map(move |(prefix, table)| table.get(&masked(address, *prefix)))
            .flatten()
            .copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.ranges.is_empty()
    }
}

/// Every path pattern in one automaton.
#[derive(Clone, Debug)]
pub(crate) struct PathIndex {
    globs: GlobSet,
    owners: Vec<PathOwner>,
}

/// What a glob of the set stands for.
#[derive(Clone, Copy, Debug)]
struct PathOwner {
    rule: usize,
    /// The directory of a `/dir/**`, which is covered only for what happens
    /// to its own metadata.
    own_metadata: bool,
}

impl PathIndex {
    /// The first rule that covers a path. `own_metadata`: what happened is a
    /// change to the metadata of a directory. `hits` is scratch space.
    pub(crate) fn first(
        &self,
        path: &[u8],
        own_metadata: bool,
        hits: &mut Vec<usize>,
    ) -> Option<usize> {
        self.globs
            .matches_candidate_into(&Candidate::from_bytes(path), hits);
        // Globs are in the order of their rules, and hits in that of globs.
        let mut owners = hits.iter().filter_map(|&hit| self.owners.get(hit));
        owners
            .find(|owner| own_metadata || !owner.own_metadata)
            .map(|owner| owner.rule)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

#[derive(Default)]
struct PathIndexBuilder {
    globs: Vec<Glob>,
    owners: Vec<PathOwner>,
}

impl PathIndexBuilder {
    fn add(&mut self, rule: usize, pattern: &PathPattern) -> Result<(), globset::Error> {
        self.push(rule, pattern.as_str(), false)?;
        match pattern.directory() {
            Some(directory) => self.push(rule, directory, true),
            None => Ok(()),
        }
    }

    fn push(&mut self, rule: usize, glob: &str, own_metadata: bool) -> Result<(), globset::Error> {
        let glob = GlobBuilder::new(glob)
            .literal_separator(true)
            .backslash_escape(true)
            .build()?;
        self.globs.push(glob);
        self.owners.push(PathOwner { rule, own_metadata });
        Ok(())
    }

    fn build(self) -> Result<PathIndex, globset::Error> {
        Ok(PathIndex {
            globs: GlobSet::new(self.globs)?,
            owners: self.owners,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(patterns: &[&str]) -> PathIndex {
        let mut builder = PathIndexBuilder::default();
        for (rule, pattern) in patterns.iter().enumerate() {
            builder
                .add(rule, &PathPattern::parse(pattern).unwrap())
                .unwrap();
        }
        builder.build().unwrap()
    }

    #[track_caller]
    fn check(pattern: &str, path: &[u8], expected: bool) {
        let found = index(&[pattern]).first(path, false, &mut Vec::new());
        assert_eq!(
            found.is_some(),
            expected,
            "{pattern} {}",
            path.escape_ascii()
        );
    }

    #[test]
    fn patterns_match_whole_paths() {
        check("/home/agent/**", b"/home/agent/x", true);
        check("/home/agent/**", b"/home/agent/x/y/.z", true);
        check("/home/agent/**", b"/home/agent", false);
        check("/home/agent/**", b"/home/agentx/y", false);
        check("/home/agent/**", b"/mnt/home/agent/x", false);
        check("/home/*/x", b"/home/a/x", true);
        check("/home/*/x", b"/home/a/b/x", false);
        check("/a/**/b", b"/a/b", true);
        check("/a/**/b", b"/a/c/d/b", true);
        check("/a/**/b", b"/a/c/d/bb", false);
        check("/**", b"/x", true);
        check("/tmp/*.txt", b"/tmp/.txt", true);
        check("/tmp/*.txt", b"/tmp/a/b.txt", false);
        check("/x/\\[id\\]", b"/x/[id]", true);
        check("/x/\\*", b"/x/y", false);
        check("/tmp/x", b"/TMP/x", false);
    }

    #[test]
    fn names_of_any_bytes_are_matched_by_wildcards_alone() {
        check("/tmp/**", b"/tmp/a\nb", true);
        check("/tmp/*", b"/tmp/\xff\xfe", true);
        check("/tmp/a*", b"/tmp/a\n\x1b[31m", true);
        check("/tmp/*.x", "/tmp/\u{fffd}.x".as_bytes(), true);
        check("/tmp/é", "/tmp/é".as_bytes(), true);
        check("/tmp/é", b"/tmp/\xc3", false);
    }

    #[test]
    fn a_directory_is_covered_for_its_own_metadata() {
        let paths = index(&["/x", "/home/*/**", "/home/agent"]);
        let mut hits = Vec::new();
        assert_eq!(paths.first(b"/home/agent", true, &mut hits), Some(1));
        assert_eq!(paths.first(b"/home/agent", false, &mut hits), Some(2));
        assert_eq!(index(&["/**"]).first(b"/", true, &mut hits), Some(0));
    }

    /// `*` and `**` by their definitions, on segments.
    fn oracle(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["**"], _) => !path.is_empty(),
            (["**", rest @ ..], _) => (0..=path.len()).any(|n| oracle(rest, &path[n..])),
            ([first, rest @ ..], [segment, tail @ ..]) => {
                let fits = match first.split_once('*') {
                    None => first == segment,
                    Some((head, tail)) => {
                        segment.len() >= head.len() + tail.len()
                            && segment.starts_with(head)
                            && segment.ends_with(tail)
                    }
                };
                fits && oracle(rest, tail)
            }
            _ => false,
        }
    }

    fn join(segments: &[&str]) -> String {
        segments
            .iter()
            .map(|segment| format!("/{segment}"))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn matching_and_covering_agree_with_their_definitions(
            wide in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**", "a*", "*b"]), 1..5),
            narrow in prop::collection::vec(prop::sample::select(vec!["a", "ab", "*", "**", "a*"]), 1..5),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c"]), 1..6),
        ) {
            let text = join(&path);
            let found = index(&[&join(&wide)]).first(text.as_bytes(), false, &mut Vec::new());
            prop_assert_eq!(found.is_some(), oracle(&wide, &path));
            let [covering, covered] = [&wide, &narrow].map(|p| PathPattern::parse(&join(p)).unwrap());
            if covering.covers(&covered) && oracle(&narrow, &path) {
                prop_assert!(oracle(&wide, &path));
            }
            prop_assert!(covering.covers(&covering));
        }
    }
}
