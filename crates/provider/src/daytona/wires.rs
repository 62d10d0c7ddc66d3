//! The host's ends of a container's veth pairs.

use super::Container;
use crate::inspect::{Namespaces, Seen};
use sandtrace_event::{Layer, TapIdentity};
use sandtrace_sys::links::{Link, links};
use sandtrace_sys::netns::within;
use sandtrace_sys::process::Process;

/// Looks for the container's interfaces and their ends here. Both ends must
/// name each other: an index alone means another link in another namespace.
pub(crate) fn look(
    seen: &mut Seen,
    namespaces: &Namespaces<'_>,
    process: &Process,
    container: &Container,
) {
    if container.shares_network {
        let why = "the container shares the network of the host or of another container";
        return seen.missing(Layer::Network, why);
    }
    let (inside, here) = match both(namespaces, process) {
        Ok(both) => both,
        Err(why) => return seen.missing(Layer::Network, why),
    };
    for link in inside {
        let Some(peer) = link.peer else { continue };
        let is_end = |end: &&Link| end.index == peer && end.peer == Some(link.index);
        match here.iter().find(is_end) {
            Some(end) => seen.taps.push(TapIdentity {
                index: end.index,
                interface: end.name.clone(),
                netns: None,
            }),
            None => seen.missing(
                Layer::Network,
                format!(
                    "the other end of the container's interface {:?} is not in this network namespace",
                    link.name
                ),
            ),
        }
    }
    if seen.taps.is_empty() {
        seen.missing(
            Layer::Network,
            "the container has no veth whose other end is here",
        );
    }
}

fn both(namespaces: &Namespaces<'_>, process: &Process) -> Result<(Vec<Link>, Vec<Link>), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let place = namespaces
        .place(process)
        .map_err(|error| failed("the container's network namespace cannot be told", &error))?;
    let Some(path) = place.path else {
        return Err("the container is in this network namespace".to_owned());
    };
    let inside = within(Some(&path), links)
        .map_err(|error| failed("look into the container's network", &error))?
        .map_err(|error| failed("list the container's interfaces", &error))?;
    let here = links().map_err(|error| failed("list this host's interfaces", &error))?;
    Ok((inside, here))
}
