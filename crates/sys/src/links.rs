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

/// `RTM_NEWLINK`, `RTM_GETLINK`, `NLM_F_DUMP`, `IFLA_IFNAME` and `IFLA_LINK`.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const DUMP: u16 = 0x300;
const NAME: u16 = 3;
const LINK: u16 = 5;

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
    let (mut name, mut peer) = (None, None);
    for (kind, value) in attributes(body.get(INFO..)?) {
        match kind {
            NAME => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            // An interface that is its own lower device has no peer.
            LINK => peer = u32_at(value, 0).filter(|&peer| peer != 0 && peer != index),
            _ => {}
        }
    }
    let name = name?;
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
