//! Network interfaces and their peers, by rtnetlink(7).

use crate::netlink::{self, attributes, messages, u32_at};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// For a veth: index of the other end, in the namespace where that is.
    pub peer: Option<u32>,
    /// What the interface's own namespace calls the one where that is; `None`
    /// where it is the same.
    pub peer_namespace: Option<NamespaceId>,
}

/// What one network namespace calls another (ip-netns(8), `list-id`). Given
/// when the kernel first has to tell of a link into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId(u32);

/// Most interfaces that are looked at.
const MAX_LINKS: usize = 65_536;

/// `RTM_NEWLINK`, `RTM_GETLINK`, `NLM_F_DUMP`, `IFLA_IFNAME`, `IFLA_LINK` and
/// `IFLA_LINK_NETNSID`.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const DUMP: u16 = 0x300;
const NAME: u16 = 3;
const LINK: u16 = 5;
const LINK_NAMESPACE: u16 = 37;

/// `IFLA_LINKINFO`, in it `IFLA_INFO_KIND` and `IFLA_INFO_DATA`, in that of a tap
/// `IFLA_TUN_PERSIST`; `IFLA_CARRIER_UP_COUNT`.
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const PERSIST: u16 = 6;
const CARRIER_UPS: u16 = 47;

/// `RTM_NEWNSID`, `RTM_GETNSID`, `NETNSA_NSID` and `NETNSA_FD` of
/// linux/net_namespace.h.
const NEW_ID: u16 = 88;
const GET_ID: u16 = 90;
const ID: u16 = 1;
const DESCRIPTOR: u16 = 3;

/// Size of a `struct ifinfomsg`; the index is at its fifth byte.
const INFO: usize = 16;

/// Size of a `struct rtgenmsg` with what fills it up.
const GENERAL: usize = 4;

/// Longest wait for an answer.
const PATIENCE: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Every interface of the calling thread's network namespace.
///
/// # Errors
/// When the kernel does not answer.
pub fn links() -> io::Result<Vec<Link>> {
    let socket = netlink::open(None, 0)?;
    netlink::request(&socket, GET_LINK, netlink::REQUEST | DUMP, &[0; INFO])?;
    let mut links = Vec::new();
    loop {
        for (kind, body) in messages(&answer(&socket)?) {
            match kind {
                netlink::DONE => return Ok(links),
                netlink::ERROR => return Err(io::Error::other("rtnetlink refused to list links")),
                NEW_LINK if links.len() < MAX_LINKS => links.extend(link(body)),
                _ => {}
            }
        }
    }
}

/// Whether the interface with this index is a tap that nobody held before the
/// one who holds it: it was made by them or for them. Its carrier is there while
/// it is held, and the kernel counts how often that came; for whoever made a tap
/// that lasts (ip-tuntap(8)) it was there from the start.
///
/// # Errors
/// When the kernel does not answer.
pub fn is_held_first(index: u32) -> io::Result<bool> {
    let mut request = [0; INFO];
    request[4..8].copy_from_slice(&index.to_ne_bytes());
    let socket = netlink::open(None, 0)?;
    netlink::request(&socket, GET_LINK, netlink::REQUEST, &request)?;
    let answer = answer(&socket)?;
    let body = messages(&answer).find_map(|(kind, body)| (kind == NEW_LINK).then_some(body));
    Ok(body.is_some_and(|body| held_first(body).unwrap_or(false)))
}

fn held_first(body: &[u8]) -> Option<bool> {
    let one = |of, wanted| attributes(of).find_map(|(kind, it)| (kind == wanted).then_some(it));
    let all = body.get(INFO..)?;
    let info = one(all, LINK_INFO)?;
    if one(info, INFO_KIND)? != b"tun\0" {
        return Some(false);
    }
    let lasts = one(one(info, INFO_DATA)?, PERSIST)? != [0];
    Some(!lasts || u32_at(one(all, CARRIER_UPS)?, 0)? <= 1)
}

/// What the calling thread's network namespace calls the one that `namespace`
/// (an open `/proc/PID/ns/net`) refers to; `None` where it has no name for it,
/// so that none of the links that were listed before leads there.
///
/// # Errors
/// When the kernel does not answer, or `namespace` is none.
pub fn namespace_id(namespace: impl AsFd) -> io::Result<Option<NamespaceId>> {
    let number = namespace.as_fd().as_raw_fd();
    let mut request = vec![0; GENERAL];
    request.extend(8_u16.to_ne_bytes());
    request.extend(DESCRIPTOR.to_ne_bytes());
    request.extend(number.to_ne_bytes());
    let socket = netlink::open(None, 0)?;
    netlink::request(&socket, GET_ID, netlink::REQUEST, &request)?;
    for (kind, body) in messages(&answer(&socket)?) {
        if kind == NEW_ID {
            let mut found = attributes(body.get(GENERAL..).unwrap_or_default());
            let value = found.find_map(|(kind, value)| (kind == ID).then(|| u32_at(value, 0))?);
            return Ok(value.filter(is_given).map(NamespaceId));
        }
    }
    Err(io::Error::other(
        "rtnetlink refused to name a network namespace",
    ))
}

/// `NETNSA_NSID_NOT_ASSIGNED` is -1, and no id is negative.
fn is_given(id: &u32) -> bool {
    i32::try_from(*id).is_ok()
}

pub(crate) fn answer(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    netlink::receive(socket)
}

fn link(body: &[u8]) -> Option<Link> {
    let index = u32_at(body, 4)?;
    let (mut name, mut lower, mut elsewhere) = (None, None, None);
    for (kind, value) in attributes(body.get(INFO..)?) {
        match kind {
            NAME => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            LINK => lower = u32_at(value, 0).filter(|&lower| lower != 0),
            LINK_NAMESPACE => elsewhere = u32_at(value, 0),
            _ => {}
        }
    }
    let name = name?;
    // An interface that is its own lower device has no peer; in another
    // namespace the same number is another interface.
    let peer = lower.filter(|&lower| elsewhere.is_some() || lower != index);
    Some(Link {
        index,
        name,
        peer,
        peer_namespace: elsewhere.filter(is_given).map(NamespaceId),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_listed() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.index, lo.peer), (1, None));
        assert_eq!(lo.peer_namespace, None);
    }

    #[test]
    fn only_namespaces_have_ids() {
        let of = |path: &str| namespace_id(std::fs::File::open(path).unwrap());
        // A link to one's own namespace needs no name for it.
        assert_eq!(of("/proc/self/ns/net").unwrap(), None);
        assert!(of("/proc/self/ns/mnt").is_err());
        assert!(of("/dev/null").is_err());
    }
}
