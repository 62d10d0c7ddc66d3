//! Addresses of a network namespace's interfaces, by rtnetlink(7).

use crate::links::answer;
use crate::netlink::{self, attributes, messages};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

/// Most addresses that are taken; a host with more is no host but a network.
const MAX_ADDRESSES: usize = 4096;

/// `RTM_NEWADDR`, `RTM_DELADDR`, `RTM_GETADDR`, `NLM_F_DUMP`, `IFA_ADDRESS` and
/// `IFA_LOCAL`.
const NEW_ADDRESS: u16 = 20;
const ADDRESS_GONE: u16 = 21;
const GET_ADDRESS: u16 = 22;
const DUMP: u16 = 0x300;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const CHANGES: u32 = 0x10 | 0x100;

/// Size of a `struct ifaddrmsg`.
const INFO: usize = 8;

/// Goes at a list that changes while it is read.
const GOES: usize = 3;

/// The addresses of the network namespace in which it was opened, as they change.
#[derive(Debug)]
pub struct Addresses {
    socket: OwnedFd,
    found: Vec<IpAddr>,
    /// Something changed since.
    stale: bool,
}

impl Addresses {
    /// Every address of the interfaces in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn open() -> io::Result<Self> {
        let mut addresses = Self {
            socket: netlink::open(None, CHANGES)?,
            found: Vec::new(),
            stale: true,
        };
        addresses.look()?;
        Ok(addresses)
    }

    /// The addresses as of the last look.
    #[must_use]
    pub fn found(&self) -> &[IpAddr] {
        &self.found
    }

    /// Looks whether anything changed since the last time. Answers whether it did.
    ///
    /// # Errors
    /// When the kernel does not answer; the next look tries again.
    pub fn look(&mut self) -> io::Result<bool> {
        loop {
            match netlink::receive(&self.socket) {
                Ok(_) => self.stale = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Too many changes for the socket: some were not told.
                Err(_) if !self.stale => self.stale = true,
                Err(error) => return Err(error),
            }
        }
        if !self.stale {
            return Ok(false);
        }
        for _ in 0..GOES {
            self.stale = self.list()?;
            if !self.stale {
                break;
            }
        }
        Ok(true)
    }

    /// Whether an address went meanwhile, so that it must be done again.
    fn list(&mut self) -> io::Result<bool> {
        let request = netlink::REQUEST | DUMP;
        netlink::request(&self.socket, GET_ADDRESS, request, &[0; INFO])?;
        let (mut found, mut moved) = (Vec::new(), false);
        loop {
            for (kind, body) in messages(&answer(&self.socket)?) {
                match kind {
                    netlink::DONE => {
                        self.found = found;
                        return Ok(moved);
                    }
                    netlink::ERROR => {
                        return Err(io::Error::other("rtnetlink refused to list addresses"));
                    }
                    ADDRESS_GONE => moved = true,
                    NEW_ADDRESS if found.len() < MAX_ADDRESSES => found.extend(address(body)),
                    _ => {}
                }
            }
        }
    }
}

/// The interface's own address: of a link between two points `IFA_ADDRESS` is
/// the other end's.
fn address(body: &[u8]) -> Option<IpAddr> {
    let of = |wanted| {
        let mut all = attributes(body.get(INFO..).unwrap_or_default());
        all.find_map(|(kind, value)| (kind == wanted).then(|| parse(value))?)
    };
    of(LOCAL).or_else(|| of(ADDRESS))
}

fn parse(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(|it| Ipv4Addr::from(it).into());
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(|it| Ipv6Addr::from(it).into()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn loopback_is_listed_and_whatever_else_can_be_bound() {
        let mut addresses = Addresses::open().unwrap();
        let found = addresses.found();
        assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
        for address in found.iter().filter(|it| it.is_ipv4()) {
            UdpSocket::bind((*address, 0)).unwrap();
        }
        addresses.look().unwrap();
        assert!(addresses.found().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
