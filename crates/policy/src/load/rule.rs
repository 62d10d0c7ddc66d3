//! One rule.

use super::fields::Fields;
use super::{files, network, scalar, syscalls};
use crate::error::{Problem, Problems};
use crate::host::HostPattern;
use crate::manifest::{Action, Body, Rule, RuleType};
use crate::yaml::{Mark, Node};

/// Longest id in characters; it stands in every record that the rule decides.
const MAX_ID: usize = 128;

/// Prefixes that verdicts use for what no rule of the manifest decided.
const RESERVED: [&str; 2] = ["builtin:", "default:"];

pub(crate) struct LoadedRule {
    pub(crate) rule: Rule,
    pub(crate) id_at: Mark,
    /// Destinations, sources, paths or names.
    pub(crate) items: usize,
}

/// `None` where the rule is too wrong to go on with; what, is in `problems`.
pub(crate) fn load(node: &Node, problems: &mut Problems) -> Option<LoadedRule> {
    let mut fields = Fields::new(node, "a rule", problems)?;
    let id_node = fields.required("id", problems);
    let id = id_node.and_then(|node| problems.keep(id(node)));
    let action = fields.word("action", problems).unwrap_or_default();
    let type_node = fields.required("type", problems);
    let rule_type = type_node.and_then(|node| problems.keep(scalar::word(node, "type")))?;
    let body = load_body(rule_type, action, &mut fields, problems);
    fields.finish(problems);
    let body = body?;
    let items = match &body {
        Body::Egress(network) | Body::Ingress(network) => network.peers.len(),
        Body::Files(files) => files.paths.len(),
        Body::Dns(names) => names.len(),
        Body::Syscalls(own) => own.allow.len() + own.deny.len() + own.threads.len(),
    };
    Some(LoadedRule {
        rule: Rule {
            id: id?,
            action,
            body,
        },
        id_at: id_node?.at,
        items,
    })
}

fn load_body(
    rule_type: RuleType,
    action: Action,
    fields: &mut Fields<'_>,
    problems: &mut Problems,
) -> Option<Body> {
    if action == Action::Deny {
        let limits = network::LIMITS.iter().chain(files::LIMITS);
        for key in limits {
            let advice = "a deny rule denies all that it matches; limits belong to allow rules";
            fields.misplaced(key, advice, problems);
        }
    }
    match rule_type {
        RuleType::Egress => network::egress(action, fields, problems).map(Body::Egress),
        RuleType::Ingress => network::ingress(action, fields, problems).map(Body::Ingress),
        RuleType::Files => files::load(action, fields, problems).map(Body::Files),
        RuleType::Dns => names(fields, problems).map(Body::Dns),
        RuleType::Syscalls => syscalls::load(action, fields, problems).map(Body::Syscalls),
    }
}

fn id(node: &Node) -> Result<String, Problem> {
    let text = scalar::string(node, "id")?;
    if text.is_empty() || text.len() > MAX_ID || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "id must be 1 to 128 printable ASCII characters without spaces";
        return Err(Problem::new(node.at, message).suggest("such as tool:stripe_charge"));
    }
    match RESERVED.iter().find(|prefix| text.starts_with(**prefix)) {
        None => Ok(text.to_owned()),
        Some(prefix) => {
            let message = format!("ids that begin with {prefix:?} are Sandtrace's own");
            Err(Problem::new(node.at, message).suggest("choose another prefix"))
        }
    }
}

fn names(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<Vec<HostPattern>> {
    let node = fields.required("names", problems)?;
    let items = scalar::list(node, "names", problems);
    let names = items.iter().filter_map(|node| problems.keep(host(node)));
    Some(names.collect()).filter(|names: &Vec<_>| !names.is_empty())
}

/// A host pattern.
pub(crate) fn host(node: &Node) -> Result<HostPattern, Problem> {
    let text = scalar::string(node, "a host")?;
    HostPattern::parse(text).map_err(|(message, suggestion)| Problem {
        at: node.at,
        message,
        suggestion,
    })
}
