//! Network interfaces by rtnetlink, see rtnetlink(7) and linux/rtnetlink.h.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

pub(super) fn set_up(interface: &str) -> io::Result<()> {
    // struct ifinfomsg: family, pad, type (u16), index, flags, mask of flags to change.
    let index = index_of(interface)?;
    let body = Message::new(&[AF_UNSPEC, 0, 0, 0])
        .word(index)
        .word(IFF_UP)
        .word(IFF_UP);
    request(RTM_NEWLINK, 0, &body)
}

pub(super) fn add_address(interface: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let body = Message::new(&[AF_INET, prefix, 0, RT_SCOPE_UNIVERSE])
        .word(index_of(interface)?)
        .attribute(IFA_LOCAL, address.octets())
        .attribute(IFA_ADDRESS, address.octets());
    request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body)
}

pub(super) fn add_default_route(interface: &str, gateway: Ipv4Addr) -> io::Result<()> {
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags (u32).
    let head = [
        AF_INET,
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        RT_SCOPE_UNIVERSE,
        RTN_UNICAST,
    ];
    let body = Message::new(&head)
        .word(0)
        .attribute(RTA_GATEWAY, gateway.octets())
        .attribute(RTA_OIF, index_of(interface)?.to_ne_bytes());
    request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body)
}

fn index_of(interface: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
    text.trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The part of a request behind its header; every attribute here is four bytes, so that
/// alignment needs no padding.
struct Message(Vec<u8>);

impl Message {
    fn new(head: &[u8]) -> Self {
        Self(head.to_vec())
    }

    fn word(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn attribute(mut self, kind: u16, value: [u8; 4]) -> Self {
        self.0.extend(8_u16.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self
    }

    /// With struct nlmsghdr in front: length, type, flags, sequence, port.
    fn framed(&self, kind: u16, flags: u16) -> io::Result<Vec<u8>> {
        let length = u32::try_from(16 + self.0.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut frame = length.to_ne_bytes().to_vec();
        frame.extend(kind.to_ne_bytes());
        frame.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        frame.extend([0; 8]);
        frame.extend(&self.0);
        Ok(frame)
    }
}

fn request(kind: u16, flags: u16, message: &Message) -> io::Result<()> {
    // Protocol 0 of this family is NETLINK_ROUTE.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(
        &socket,
        &message.framed(kind, flags)?,
        SendFlags::empty(),
        &kernel,
    )?;
    let mut answer = [0; 1024];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    acknowledged(answer.get(..length).unwrap_or_default())
}

/// The kernel answers with NLMSG_ERROR also when all went well, then with error 0.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match (kind.map(u16::from_ne_bytes), error.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no acknowledgement",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_length() {
        let body = Message::new(&[AF_INET, 24, 0, 0])
            .word(2)
            .attribute(IFA_LOCAL, [10, 0, 0, 2]);
        let frame = body.framed(RTM_NEWADDR, NLM_F_CREATE).unwrap();
        assert_eq!(frame.len(), 32);
        assert_eq!(frame[..4], 32_u32.to_ne_bytes());
        assert_eq!(frame[24..], [8, 0, 2, 0, 10, 0, 0, 2]);
    }

    #[test]
    fn answers() {
        let answer = |error: i32| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend(NLMSG_ERROR.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(error.to_ne_bytes());
            bytes
        };
        assert!(acknowledged(&answer(0)).is_ok());
        let exists = acknowledged(&answer(-17)).unwrap_err();
        assert_eq!(exists.raw_os_error(), Some(17));
        assert!(acknowledged(&answer(-17)[..18]).is_err());
    }

    #[test]
    fn the_kernel_answers() {
        // Loopback is up already or may not be touched; either way the exchange is in order.
        if let Err(error) = set_up("lo") {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        }
        assert!(set_up("none-such").is_err());
    }
}
