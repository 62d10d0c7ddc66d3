//! Network interfaces and their peers, by rtnetlink(7).

use crate::netlink::{self, attributes, messages, u32_at};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// For a veth: index of the other end, in the namespace where that is.
    pub peer: Option<u32>,
}

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

/// Size of a `struct ifinfomsg`; the index is at its fifth byte.
const INFO: usize = 16;

/// Every interface of the calling thread's network namespace.
///
/// # Errors
/// When the kernel does not answer.
pub fn links() -> io::Result<Vec<Link>> {
    let socket = netlink::open(None, 0)?;
    netlink::request(&socket, GET_LINK, netlink::REQUEST | DUMP, &[0; INFO])?;
    let mut links = Vec::new();
    loop {
        let patience = Timespec {
            tv_sec: 2,
            tv_nsec: 0,
        };
        if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for (kind, body) in messages(&netlink::receive(&socket)?) {
            match kind {
                netlink::DONE => return Ok(links),
                netlink::ERROR => return Err(io::Error::other("rtnetlink refused to list links")),
                NEW_LINK if links.len() < MAX_LINKS => links.extend(link(body)),
                _ => {}
            }
        }
    }
}

fn link(body: &[u8]) -> Option<Link> {
    let index = u32_at(body, 4)?;
    let (mut name, mut lower, mut elsewhere) = (None, None, false);
    for (kind, value) in attributes(body.get(INFO..)?) {
        match kind {
            NAME => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            LINK => lower = u32_at(value, 0).filter(|&lower| lower != 0),
            LINK_NAMESPACE => elsewhere = true,
            _ => {}
        }
    }
    let name = name?;
    // An interface that is its own lower device has no peer; in another
    // namespace the same number is another interface.
    let peer = lower.filter(|&lower| elsewhere || lower != index);
    Some(Link { index, name, peer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_listed() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.index, lo.peer), (1, None));
    }
}
