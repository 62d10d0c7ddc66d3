//! A rule in one line, for people.

use crate::manifest::{Access, Action, Body, Files, Network, Peer, Rule, Syscalls, Who, word};
use std::fmt;

/// Items that are listed before the rest is only counted.
const LISTED: usize = 4;

/// What `policy check` says of a rule. Displayed as
/// `tool:read_file (filesystem): allow /home/agent/**, /tmp/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSummary {
    /// The rule's id.
    pub id: String,
    /// Its type, as the manifest spells it.
    pub rule_type: &'static str,
    /// What it allows or denies and within which limits, on one line.
    pub description: String,
}

impl fmt::Display for RuleSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.id, self.rule_type, self.description)
    }
}

impl RuleSummary {
    pub(crate) fn of(rule: &Rule) -> Self {
        let (items, limits): (Vec<String>, Vec<String>) = match &rule.body {
            Body::Egress(network) => (network.peers.iter().map(peer).collect(), limits(network)),
            Body::Ingress(network) => {
                let from = |source| format!("from {}", peer(source));
                (network.peers.iter().map(from).collect(), limits(network))
            }
            Body::Files(files) => (
                files
                    .paths
                    .iter()
                    .map(|path| escape(path.as_str()))
                    .collect(),
                file_limits(files),
            ),
            Body::Syscalls(own) => (syscalls(own), Vec::new()),
            Body::Dns(names) => (names.iter().map(ToString::to_string).collect(), Vec::new()),
        };
        let action = match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        let mut description = format!("{action} {}", listed(&items));
        for limit in limits {
            description.push_str("; ");
            description.push_str(&limit);
        }
        Self {
            id: rule.id.clone(),
            rule_type: word(rule.body.rule_type()),
            description,
        }
    }
}

fn syscalls(own: &Syscalls) -> Vec<String> {
    let threads = match own.threads.as_slice() {
        [] => "every VMM thread".to_owned(),
        threads => threads.join(", "),
    };
    let profile = own
        .profile
        .map(|profile| format!("profile {}", word(profile)));
    let deny = (!own.deny.is_empty()).then(|| format!("but not {}", own.deny.join(", ")));
    let items = profile
        .into_iter()
        .chain(own.allow.iter().cloned())
        .chain(deny);
    std::iter::once(format!("of {threads}:"))
        .chain(items)
        .collect()
}

fn listed(items: &[String]) -> String {
    let shown: Vec<_> = items.iter().take(LISTED).map(String::as_str).collect();
    match items.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn peer(peer: &Peer) -> String {
    let who = match &peer.who {
        Who::Host(host) => host.to_string(),
        Who::Range(range) if range.is_single() => range.network().to_string(),
        Who::Range(range) => range.to_string(),
    };
    let ports = match &peer.ports {
        Some(ports) => format!(" port {ports}"),
        None => " any port".to_owned(),
    };
    match peer.protocol {
        Some(protocol) if protocol.has_ports() => format!("{who}{ports}/{}", word(protocol)),
        Some(protocol) => format!("{who} {}", word(protocol)),
        None => format!("{who}{ports}"),
    }
}

fn limits(network: &Network) -> Vec<String> {
    let bytes = |limit: Option<u64>, what: &str| {
        limit.map(|limit| format!("at most {} B {what}", crate::engine::grouped(limit)))
    };
    let connections = network
        .max_connections
        .map(|limit| format!("at most {limit} connections at a time"));
    let evidence = network
        .min_name_evidence
        .map(|minimum| format!("names at least {}", word(minimum)));
    [
        bytes(network.max_bytes_per_call, "a call"),
        bytes(network.max_bytes_total, "a connection"),
        connections,
        evidence,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn file_limits(files: &Files) -> Vec<String> {
    let access = Some(files.access)
        .filter(|access| *access != Access::Full)
        .map(word);
    let size = files
        .max_file_bytes
        .map(|limit| format!("at most {} B a file", crate::engine::grouped(limit)));
    access
        .map(ToOwned::to_owned)
        .into_iter()
        .chain(size)
        .collect()
}

/// A path may hold any character; this is for a terminal.
fn escape(path: &str) -> String {
    crate::engine::Shown(path).to_string()
}
