//! Netlink messages: the framing that every family shares (netlink(7)).
//! Numbers are in the byte order of the host.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};
use std::io;
use std::os::fd::OwnedFd;

/// Longest datagram that the kernel makes of a dump.
const DATAGRAM: usize = 64 << 10;

/// `NLMSG_ERROR` and `NLMSG_DONE` of linux/netlink.h.
pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 1;

/// Size of a `struct nlmsghdr`.
const HEADER: usize = 16;

pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

pub(crate) fn request(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "netlink message too long");
    let length = u32::try_from(HEADER + body.len()).map_err(too_long)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and port: one answer at a time, and the kernel fills in the port.
    message.extend([0; 8]);
    message.extend(body);
    send(socket, &message, SendFlags::empty())?;
    Ok(())
}

/// One datagram; `WouldBlock` where there is none.
pub(crate) fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut datagram = vec![0; DATAGRAM];
    let (length, _) = recv(socket, &mut datagram[..], RecvFlags::DONTWAIT)?;
    datagram.truncate(length);
    Ok(datagram)
}

/// The messages of a datagram: type and body. What is malformed ends it.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let kind = u16_at(rest, 4)?;
        let body = rest.get(HEADER..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes that follow a message's fixed part: type and value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)?;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_messages_end_the_walk() {
        for bytes in [&[0; 16][..], &[255; 40], &[15, 0, 0, 0, 1, 0], b""] {
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(
            attributes(&[5, 0, 7, 0, 9]).collect::<Vec<_>>(),
            [(7, &[9][..])]
        );
    }
}
