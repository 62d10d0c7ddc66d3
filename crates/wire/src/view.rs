//! What a flow looks like from outside, at the moment of a report.

use crate::findings::Findings;
use crate::http::HttpFacts;
use crate::names::NameEvidence;
use crate::packet::Moment;
use crate::tcp::TcpState;
use crate::tls::{CertificateFacts, TlsFacts};
use crate::tunnel::TunnelFacts;
use std::net::IpAddr;
use std::sync::Arc;

/// Where in its life a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The first report.
    Open,
    /// A bound was crossed, a name became known late, or the interval passed.
    Update,
    /// The last report.
    Close,
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Both sides sent FIN.
    Fin,
    /// One side sent RST.
    Rst,
    /// Nothing was sent for the protocol's idle time.
    Idle,
    /// The table was full and this flow was the idlest.
    Evicted,
    /// The capture ended while the flow went on.
    Detached,
}

/// Who began a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// The sandbox: egress.
    Sandbox,
    /// The outside: ingress.
    Outside,
}

/// What a flow's frames carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4.
    Icmp,
    /// ICMP over IPv6.
    Icmpv6,
    /// ARP.
    Arp,
    /// Another IP protocol, by its number.
    Ip(u8),
    /// Another Ethernet protocol, by its EtherType; 0 where a frame is too
    /// short to have one.
    Ethernet(u16),
}

impl Protocol {
    /// Its number in an IP header; 255, which is reserved, where it has none.
    pub(crate) const fn ip_number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp => 1,
            Self::Icmpv6 => 58,
            Self::Ip(number) => number,
            Self::Arp | Self::Ethernet(_) => 255,
        }
    }
}

/// Many conversations counted as one, as there were too many to report each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Conversations, or parts of them.
    pub flows: u64,
    /// The peers' network, `192.0.2.0/24` or a /64; absent where even those were too many.
    pub network: Option<String>,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address; absent where the frames are not IP.
    pub ip: Option<IpAddr>,
    /// Port; absent where the protocol has none and for later fragments.
    pub port: Option<u16>,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Packets that the frames are on a wire: offloads hand many over as one.
    pub segments: u64,
    /// Bytes of whole frames, as the interface counts them.
    pub wire_bytes: u64,
    /// Transport payload in bytes. Of TCP only what is new: a byte sent again
    /// under the same sequence number is in `resent_bytes`.
    pub payload_bytes: u64,
    /// Payload bytes of TCP segments under sequence numbers seen before.
    pub resent_bytes: u64,
}

/// Bounds on a flow; exceeding one causes an update at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Most payload bytes of one call.
    pub max_bytes_per_call: Option<u64>,
    /// Most payload bytes sent by the sandbox on the whole flow.
    pub max_bytes_total: Option<u64>,
}

/// A flow as of one report.
#[derive(Clone, Debug)]
pub struct FlowView<'a> {
    /// Number of the flow within its table, from 1.
    pub flow_id: u64,
    /// Who began it.
    pub initiator: Initiator,
    /// What its frames carry.
    pub protocol: Protocol,
    /// The sandbox's end, as its frames claim it.
    pub sandbox: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// VLAN identifier, where tagged.
    pub vlan: Option<u16>,
    /// Frames are fragments that were not joined, which bear no ports.
    pub later_fragments: bool,
    /// What the sandbox sent.
    pub sent: Traffic,
    /// What it received.
    pub received: Traffic,
    /// Runs of client payload so far, the current one included.
    pub calls: u64,
    /// Which call, from 1, is the largest; 0 while there is none.
    pub max_call: u64,
    /// Payload bytes of the largest call.
    pub max_call_bytes: u64,
    /// Client payload that belongs to TLS handshake and closure, not to a call.
    pub handshake_bytes: u64,
    /// Payload bytes of the sandbox that were acknowledged but never seen.
    pub missed_bytes_sent: u64,
    /// Payload bytes for the sandbox that it acknowledged but that were never seen.
    pub missed_bytes_received: u64,
    /// Connection state; TCP only.
    pub state: Option<TcpState>,
    /// What happened in Zeek's letters (`ShADadFf`); TCP only.
    pub history: Option<&'a str>,
    /// Why it ended; only at [`Phase::Close`].
    pub end: Option<End>,
    /// Community ID 1.0 with seed 0, where the specification covers the protocol.
    pub community_id: Option<String>,
    /// Every claim about the peer's name.
    pub names: Vec<NameEvidence>,
    /// Best name of the peer: a claim that DNS backs, else a claim, else its
    /// only DNS name. Absent where there is none.
    pub host: Option<Arc<str>>,
    /// The clear part of a TLS handshake.
    pub tls: Option<&'a TlsFacts>,
    /// The server's certificate, where it was sent in the clear.
    pub certificate: Option<&'a CertificateFacts>,
    /// The first HTTP/1 request.
    pub http: Option<&'a HttpFacts>,
    /// ICMP type of the first message.
    pub icmp_type: Option<u8>,
    /// First packet.
    pub started: Moment,
    /// Last packet.
    pub last: Moment,
    /// What carries it, where it is inside a tunnel. Its bytes are then also in
    /// the flow that carries it, and its addresses prove nothing.
    pub tunnel: Option<TunnelFacts>,
    /// Set where it stands for many conversations.
    pub aggregate: Option<Aggregate>,
    /// What is odd about it.
    pub findings: Findings,
}
