//! The keys of network rules.

use super::fields::Fields;
use super::{rule, scalar};
use crate::cidr::{Cidr, CidrError};
use crate::error::{Problem, Problems};
use crate::manifest::{Action, Network, Peer, Transport, Who};
use crate::ports::Ports;
use crate::yaml::{Mark, Node, Value};
use sandtrace_event::MAX_SAFE_INTEGER;
use std::net::IpAddr;

/// Keys that an allow rule alone can have.
pub(crate) const LIMITS: &[&str] = &[
    "max_bytes_per_call",
    "max_bytes_total",
    "max_connections",
    "min_name_evidence",
];

/// Conversations that an engine tells apart for one rule.
const MAX_CONNECTIONS: u64 = 65_536;

pub(crate) fn egress(
    action: Action,
    fields: &mut Fields<'_>,
    problems: &mut Problems,
) -> Option<Network> {
    let mut network = load(["destinations", "sources"], fields, problems);
    if action == Action::Allow {
        network.max_bytes_per_call =
            fields.number("max_bytes_per_call", 0..=MAX_SAFE_INTEGER, problems);
        network.min_name_evidence = fields.word("min_name_evidence", problems);
        limits(&mut network, fields, problems);
    }
    (!network.peers.is_empty()).then_some(network)
}

/// Peers are addresses here: whoever connects from outside may call itself
/// anything.
pub(crate) fn ingress(
    action: Action,
    fields: &mut Fields<'_>,
    problems: &mut Problems,
) -> Option<Network> {
    for key in ["max_bytes_per_call", "min_name_evidence"] {
        fields.misplaced(key, "it applies to network_egress", problems);
    }
    let mut network = load(["sources", "destinations"], fields, problems);
    if action == Action::Allow {
        limits(&mut network, fields, problems);
    }
    (!network.peers.is_empty()).then_some(network)
}

/// A rule without limits: its peers stand under the first key, not under
/// the second, which belongs to the other direction.
fn load(
    [key, other]: [&'static str; 2],
    fields: &mut Fields<'_>,
    problems: &mut Problems,
) -> Network {
    let advice = format!("did you mean {key:?}?");
    let node = if fields.misplaced(other, &advice, problems) {
        fields.take(key)
    } else {
        fields.required(key, problems)
    };
    Network {
        peers: node.map_or_else(Vec::new, |node| peers(node, key, problems)),
        max_bytes_per_call: None,
        max_bytes_total: None,
        max_connections: None,
        min_name_evidence: None,
    }
}

fn limits(network: &mut Network, fields: &mut Fields<'_>, problems: &mut Problems) {
    network.max_bytes_total = fields.number("max_bytes_total", 0..=MAX_SAFE_INTEGER, problems);
    network.max_connections = fields
        .number("max_connections", 1..=MAX_CONNECTIONS, problems)
        .and_then(|number| u32::try_from(number).ok());
}

fn peers(node: &Node, what: &'static str, problems: &mut Problems) -> Vec<Peer> {
    let items = scalar::list(node, what, problems);
    items
        .iter()
        .filter_map(|node| peer(node, what, problems))
        .collect()
}

fn peer(node: &Node, what: &'static str, problems: &mut Problems) -> Option<Peer> {
    let singular = if what == "sources" {
        "a source"
    } else {
        "a destination"
    };
    let mut fields = Fields::new(node, singular, problems)?;
    let who = who(&mut fields, singular, problems);
    let ports_node = fields.take("port");
    fields.misplaced(
        "ports",
        "did you mean \"port\"? it takes a list too",
        problems,
    );
    let ports = ports_node.and_then(|node| ports(node, problems));
    let protocol: Option<Transport> = fields.word("protocol", problems);
    if let (Some(node), Some(protocol)) = (ports_node, protocol)
        && !protocol.has_ports()
    {
        let message = format!("{} has no ports", crate::manifest::word(protocol));
        problems.push(Problem::new(node.at, message).suggest("remove the port"));
    }
    fields.finish(problems);
    Some(Peer {
        who: who?,
        ports,
        protocol,
    })
}

fn who(fields: &mut Fields<'_>, what: &'static str, problems: &mut Problems) -> Option<Who> {
    match (fields.take("host"), fields.take("cidr")) {
        (Some(node), None) => problems.keep(host(node, what)),
        (None, Some(node)) => problems.keep(cidr(node)).map(Who::Range),
        (Some(_), Some(node)) => {
            let message = format!("{what} has a host or a cidr, not both");
            problems.push(Problem::new(node.at, message).suggest("write two entries"));
            None
        }
        (None, None) => {
            let message = format!("{what} lacks the key \"host\" or \"cidr\"");
            let hint = "`host: \"**\"` for any named host, `cidr: 0.0.0.0/0` for any address";
            problems.push(Problem::new(fields.at(), message).suggest(hint));
            None
        }
    }
}

fn host(node: &Node, what: &'static str) -> Result<Who, Problem> {
    let text = scalar::string(node, "host")?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Who::Range(Cidr::single(address)));
    }
    if let Some(Ok(address)) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .map(str::parse::<IpAddr>)
    {
        let problem = Problem::new(node.at, format!("not a host name: {text:?}"));
        return Err(problem.suggest(format!("write \"{address}\"")));
    }
    if what == "a source" {
        let message = "a source is an address: what a peer calls itself proves nothing";
        return Err(Problem::new(node.at, message).suggest("use `cidr:`"));
    }
    rule::host(node).map(Who::Host)
}

fn cidr(node: &Node) -> Result<Cidr, Problem> {
    let text = scalar::string(node, "cidr")?;
    let problem = |message: &str| Problem::new(node.at, format!("{message}: {text:?}"));
    text.parse().map_err(|error| match error {
        CidrError::Form => problem("not an address range").suggest("such as 10.0.0.0/8"),
        CidrError::NoPrefix(single) => {
            problem("a cidr without prefix length").suggest(format!("write {single}"))
        }
        CidrError::Length(most) => {
            problem("prefix length out of range").suggest(format!("0 to {most}"))
        }
        CidrError::HostBits(range) => {
            problem("bits beyond the prefix are set").suggest(format!("write {range}"))
        }
    })
}

fn ports(node: &Node, problems: &mut Problems) -> Option<Ports> {
    let items = match &node.value {
        Value::List(_) => scalar::list(node, "port", problems),
        _ => std::slice::from_ref(node),
    };
    let ranges = items
        .iter()
        .filter_map(|node| problems.keep(port_range(node)));
    Ports::new(ranges.collect())
}

fn port_range(node: &Node) -> Result<(u16, u16), Problem> {
    let Value::Scalar { text, .. } = &node.value else {
        return Err(bad_port(
            node.at,
            &format!("port cannot be {}", node.kind()),
        ));
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (port(from), port(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        (Some(from), Some(to)) => {
            let problem = Problem::new(node.at, format!("port range {text:?} runs backwards"));
            Err(problem.suggest(format!("write \"{to}-{from}\"")))
        }
        _ => Err(bad_port(node.at, &format!("port {text:?} is out of range"))),
    }
}

fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

fn bad_port(at: Mark, message: &str) -> Problem {
    Problem::new(at, message)
        .suggest("a number from 1 to 65535, a range such as \"8000-8100\", or a list of both")
}
