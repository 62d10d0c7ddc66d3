//! Network namespaces, taps and links of a lab, by iproute2.

use std::fs;
use std::net::Ipv4Addr;

use sandtrace_sys::netns::{path_of, within};

use crate::error::{LabError, doing};
use crate::programs::IP;

/// Makes a named namespace with loopback up and without IPv6: every frame on a lab's links is
/// then caused by its sandbox, not by the host's router solicitations.
pub(crate) fn add(name: &str) -> Result<(), LabError> {
    IP.run(["netns", "add", name])?;
    within(Some(&path_of(name)), turn_off_ipv6)??;
    ip(name, "link set lo up")
}

fn turn_off_ipv6() -> Result<(), LabError> {
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        match fs::write(&path, "1") {
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(doing(format!("write {path}")))?,
        }
    }
    Ok(())
}

pub(crate) fn remove(name: &str) -> Result<(), LabError> {
    if path_of(name).exists() {
        IP.run(["netns", "del", name])?;
    }
    Ok(())
}

/// Makes a tap that outlives the process which uses it, with the host's address on it. Beside
/// root the user with this id may open it.
pub(crate) fn add_tap(
    netns: &str,
    tap: &str,
    owner: u32,
    (address, prefix): (Ipv4Addr, u8),
) -> Result<(), LabError> {
    ip(
        netns,
        &format!("tuntap add dev {tap} mode tap user {owner}"),
    )?;
    ip(netns, &format!("addr add {address}/{prefix} dev {tap}"))?;
    ip(netns, &format!("link set {tap} up"))
}

/// Makes a pair of links: `outer` in one namespace, `inner` in the other.
pub(crate) fn add_pair(netns: &str, outer: &str, other: &str, inner: &str) -> Result<(), LabError> {
    ip(
        netns,
        &format!("link add {outer} type veth peer name {inner} netns {other}"),
    )
}

pub(crate) fn set_address(
    netns: &str,
    link: &str,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<(), LabError> {
    ip(netns, &format!("addr add {address}/{prefix} dev {link}"))?;
    ip(netns, &format!("link set {link} up"))
}

pub(crate) fn set_default_route(netns: &str, gateway: Ipv4Addr) -> Result<(), LabError> {
    ip(netns, &format!("route add default via {gateway}"))
}

pub(crate) fn remove_link(netns: &str, link: &str) -> Result<(), LabError> {
    ip(netns, &format!("link del {link}"))
}

/// Runs `ip` in a namespace.
pub(crate) fn ip(netns: &str, words: &str) -> Result<(), LabError> {
    IP.run(["-n", netns].into_iter().chain(words.split_whitespace()))?;
    Ok(())
}
