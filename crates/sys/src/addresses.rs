//! Addresses of a network namespace's interfaces, by rtnetlink(7).

use crate::links::answer;
use crate::netlink::{self, attributes, messages};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most addresses that are taken; a host with more is no host but a network.
const MAX_ADDRESSES: usize = 4096;

/// `RTM_NEWADDR`, `RTM_GETADDR`, `NLM_F_DUMP`, `IFA_ADDRESS` and `IFA_LOCAL`.
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const DUMP: u16 = 0x300;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// Size of a `struct ifaddrmsg`.
const INFO: usize = 8;

/// Every address of the interfaces in the calling thread's network namespace.
///
/// # Errors
/// When the kernel does not answer.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let socket = netlink::open(None, 0)?;
    netlink::request(&socket, GET_ADDRESS, netlink::REQUEST | DUMP, &[0; INFO])?;
    let mut found = Vec::new();
    loop {
        for (kind, body) in messages(&answer(&socket)?) {
            match kind {
                netlink::DONE => return Ok(found),
                netlink::ERROR => {
                    return Err(io::Error::other("rtnetlink refused to list addresses"));
                }
                NEW_ADDRESS if found.len() < MAX_ADDRESSES => found.extend(address(body)),
                _ => {}
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
        let found = addresses().unwrap();
        assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
        for address in found.iter().filter(|it| it.is_ipv4()) {
            UdpSocket::bind((*address, 0)).unwrap();
        }
    }
}
