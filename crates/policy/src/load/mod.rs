//! From a tree to a manifest; every error has its place.

mod fields;
mod files;
mod network;
mod rule;
mod scalar;
mod syscalls;

use crate::error::{Problem, Problems};
use crate::manifest::{Defaults, Manifest, Rule};
use crate::yaml::{self, Mark, Node};
use fields::Fields;
use std::collections::HashMap;
use std::net::IpAddr;

/// The only version there is.
const SCHEMA_VERSION: &str = "1.0";

/// Destinations, sources, paths and names of all rules together. Keeps the
/// check for unreachable rules and the tables small.
const MAX_ITEMS: usize = 10_000;

/// A manifest, and where its rules stand.
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    /// Place of each rule's id, in the order of the rules.
    pub(crate) marks: Vec<Mark>,
}

/// `None` where anything is wrong; what, is in `problems`.
pub(crate) fn load(text: &[u8], problems: &mut Problems) -> Option<Loaded> {
    let root = problems.keep(yaml::parse(text))?;
    let mut fields = Fields::new(&root, "the manifest", problems)?;
    let version = fields.required("schema_version", problems);
    problems.keep(version.map_or(Ok(()), check_version));
    let defaults = fields.take("defaults");
    let resolvers = fields.take("resolvers");
    let rules = match defaults {
        Some(_) => fields.take("rules"),
        None => fields.required("rules", problems),
    };
    fields.finish(problems);
    let (rules, marks) = rules.map_or_else(Default::default, |node| load_rules(node, problems));
    let defaults = defaults.map_or_else(Defaults::default, |node| load_defaults(node, problems));
    let resolvers = resolvers.map_or_else(Vec::new, |node| load_resolvers(node, problems));
    problems.is_empty().then_some(Loaded {
        manifest: Manifest {
            rules,
            defaults,
            resolvers,
        },
        marks,
    })
}

fn check_version(node: &Node) -> Result<(), Problem> {
    let yaml::Value::Scalar { text, quoted } = &node.value else {
        return Err(Problem::new(
            node.at,
            format!("schema_version must be a string, not {}", node.kind()),
        ));
    };
    if text == SCHEMA_VERSION && !quoted {
        let problem = Problem::new(node.at, "schema_version must be a string, not a number");
        return Err(problem.suggest(format!("write {SCHEMA_VERSION:?} in quotes")));
    }
    if text != SCHEMA_VERSION {
        let problem = Problem::new(node.at, format!("unknown schema_version {text:?}"));
        return Err(problem.suggest(format!("this program reads {SCHEMA_VERSION:?}")));
    }
    Ok(())
}

fn load_rules(node: &Node, problems: &mut Problems) -> (Vec<Rule>, Vec<Mark>) {
    let mut rules = Vec::new();
    let mut marks = Vec::new();
    let mut first_of: HashMap<String, Mark> = HashMap::new();
    let mut items = 0;
    for node in scalar::list(node, "rules", problems) {
        let Some(loaded) = rule::load(node, problems) else {
            debug_assert!(!problems.is_empty(), "a rule vanished without a word");
            continue;
        };
        items += loaded.items;
        if let Some(first) = first_of.get(&loaded.rule.id) {
            let message = format!("rule id {:?} is given twice", loaded.rule.id);
            let first = format!("first in line {}", first.line);
            problems.push(Problem::new(loaded.id_at, message).suggest(first));
            continue;
        }
        first_of.insert(loaded.rule.id.clone(), loaded.id_at);
        marks.push(loaded.id_at);
        rules.push(loaded.rule);
    }
    if items > MAX_ITEMS {
        let message =
            format!("{items} destinations, paths and names; at most {MAX_ITEMS} are possible");
        problems.push(Problem::new(node.at, message).suggest("use wildcards and ranges"));
    }
    (rules, marks)
}

fn load_defaults(node: &Node, problems: &mut Problems) -> Defaults {
    let mut defaults = Defaults::default();
    let Some(mut fields) = Fields::new(node, "defaults", problems) else {
        return defaults;
    };
    if let Some(fallback) = fields.word("network", problems) {
        defaults.network = fallback;
    }
    if let Some(fallback) = fields.word("filesystem", problems) {
        defaults.filesystem = fallback;
    }
    defaults.syscall = fields.word("syscall", problems);
    if let Some(minimum) = fields.word("min_name_evidence", problems) {
        defaults.min_name_evidence = minimum;
    }
    if let Some(which) = fields.word("private_addresses", problems) {
        defaults.private_addresses = which;
    }
    if let Some(ech) = fields.word("ech", problems) {
        defaults.ech = ech;
    }
    fields.finish(problems);
    defaults
}

fn load_resolvers(node: &Node, problems: &mut Problems) -> Vec<IpAddr> {
    let mut resolvers: Vec<IpAddr> = Vec::new();
    for node in scalar::list(node, "resolvers", problems) {
        let Some(address) = problems.keep(resolver(node)) else {
            continue;
        };
        if resolvers.contains(&address) {
            problems.push(Problem::new(
                node.at,
                format!("resolver {address} is given twice"),
            ));
        }
        resolvers.push(address);
    }
    resolvers
}

fn resolver(node: &Node) -> Result<IpAddr, Problem> {
    let text = scalar::string(node, "a resolver")?;
    let address: IpAddr = text.parse().map_err(|_| {
        Problem::new(node.at, format!("{text:?} is not an IP address"))
            .suggest("write an address such as 192.0.2.53, without a port")
    })?;
    Ok(address.to_canonical())
}

#[cfg(test)]
mod tests;
