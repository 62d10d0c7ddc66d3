//! The host's ends of a container's veth pairs.

use super::Container;
use crate::inspect::{Namespaces, Seen};
use sandtrace_event::{Layer, TapIdentity};
use sandtrace_sys::links::{Link, NamespaceId, links, namespace_id};
use sandtrace_sys::netns::within;
use sandtrace_sys::process::Process;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Looks for the container's interfaces and their ends here. Both ends must
/// name each other, and the end here the container's namespace: a privileged
/// container can give its links any index, also those of another's, but not
/// say where an end of this host's leads.
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
    let sides = match sides(namespaces, process) {
        Ok(sides) => sides,
        Err(why) => return seen.missing(Layer::Network, why),
    };
    for link in &sides.inside {
        // A pair of which both ends are inside leads nowhere.
        let (Some(peer), Some(_)) = (link.peer, link.peer_namespace) else {
            continue;
        };
        let is_end = |end: &&Link| {
            let leads_there = end.peer_namespace.is_some() && end.peer_namespace == sides.id;
            leads_there && end.index == peer && end.peer == Some(link.index)
        };
        match sides.here.iter().find(is_end) {
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

/// The links of the container and of this host.
struct Sides {
    inside: Vec<Link>,
    here: Vec<Link>,
    /// What this network namespace calls the container's.
    id: Option<NamespaceId>,
}

fn sides(namespaces: &Namespaces<'_>, process: &Process) -> Result<Sides, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let place = namespaces
        .place(process)
        .map_err(|error| failed("the container's network namespace cannot be told", &error))?;
    let Some(path) = place.path else {
        return Err("the container is in this network namespace".to_owned());
    };
    let namespace = File::open(&path)
        .map_err(|error| failed("open the container's network namespace", &error))?;
    // By what was opened: a process can go to another namespace at any time.
    let opened = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    let inside = within(Some(Path::new(&opened)), links)
        .map_err(|error| failed("look into the container's network", &error))?
        .map_err(|error| failed("list the container's interfaces", &error))?;
    let here = links().map_err(|error| failed("list this host's interfaces", &error))?;
    // After the list, which gives each namespace that a link leads to its name.
    let id = namespace_id(&namespace)
        .map_err(|error| failed("name the container's network namespace", &error))?;
    Ok(Sides { inside, here, id })
}
