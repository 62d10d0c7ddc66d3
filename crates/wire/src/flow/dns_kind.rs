//! Which flows carry DNS messages that are read.

use crate::dns::Message;
use crate::frame::Frame;
use crate::key::FlowKey;
use crate::view::{Initiator, Protocol};

/// How a flow carries DNS messages that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dns {
    Udp,
    Tcp,
    /// Over UDP to a port that is not for DNS. Over TCP that shows later, by
    /// the client's first bytes.
    OddPort,
}

pub(crate) const DNS_PORT: u16 = 53;
/// Questions on the link, which no resolver answers: NetBIOS, mDNS, LLMNR.
const LINK_PORTS: [u16; 3] = [137, 5353, 5355];

pub(crate) fn dns_of(key: &FlowKey, frame: &Frame<'_>, initiator: Initiator) -> Option<Dns> {
    let port = key.peer().port?;
    match key.protocol {
        Protocol::Udp if port == DNS_PORT => Some(Dns::Udp),
        Protocol::Tcp if port == DNS_PORT && initiator == Initiator::Sandbox => Some(Dns::Tcp),
        Protocol::Udp
            if initiator == Initiator::Sandbox
                && !LINK_PORTS.contains(&port)
                && Message::is_plain_question(frame.payload) =>
        {
            Some(Dns::OddPort)
        }
        _ => None,
    }
}
