//! Payloads of `network_egress`, `network_ingress` and `dns_query`.

use crate::{Count, Digest, WallTime};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// Protocol of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// Another IP protocol; its number is in [`Flow::ip_protocol`].
    Ip,
    /// Another Ethernet protocol; its number is in [`Flow::ether_type`].
    Ethernet,
}

/// Where in its life a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowPhase {
    /// The first record, within 100 ms of the first packet.
    Open,
    /// A policy bound was crossed, or a minute passed.
    Update,
    /// The last record.
    Close,
}

/// Why a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowEnd {
    /// Both sides sent FIN.
    Fin,
    /// One side sent RST.
    Rst,
    /// Nothing was sent for the protocol's idle time.
    Idle,
    /// The flow table was full and this conversation was the idlest.
    Evicted,
    /// Sandtrace detached while the conversation went on.
    Detached,
}

/// Who claims that an address has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// A DNS answer that arrived at the sandbox and matched its question.
    Dns,
    /// The server name in a TLS ClientHello: the client's claim.
    TlsSni,
    /// The server name in a ClientHello over QUIC: the client's claim.
    QuicSni,
    /// The host of an HTTP/1 request: the client's claim.
    HttpHost,
    /// The host that a SOCKS proxy was asked for: the client's claim.
    SocksHost,
    /// A name in the server's certificate, unverified: the server's claim.
    TlsCert,
}

/// One claim that a conversation's peer bears a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameEvidence {
    /// A client's claim is backed by an accepted resolver's answer for this
    /// very address, or such an answer by the client's claim.
    pub agrees: bool,
    /// This answer vouches for nothing, whoever gave it: it came from a port that is
    /// not for DNS, or another answer to the same question contradicts it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discounted: bool,
    /// The name in lower case without a trailing dot.
    pub name: Arc<str>,
    /// When the claim was seen.
    pub observed_at: WallTime,
    /// The resolver that answered, for [`NameSource::Dns`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<IpAddr>,
    /// Whether that resolver is one of the accepted ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver_accepted: Option<bool>,
    /// Who claims it.
    pub source: NameSource,
}

/// What a server's certificate says of itself; nobody verified it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFacts {
    /// Who issued it: `C=US, O=Let's Encrypt, CN=R11`.
    pub issuer: String,
    /// Its alternative names or, where it has none, its common name: at most eight,
    /// those that cover the name that the client asked for, or the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names_left_out: Option<Count>,
    /// Until when it is valid (RFC 3339); absent where that is malformed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// From when on it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// Serial number in hexadecimal digits.
    pub serial: String,
    /// Of its DER form.
    pub sha256: Digest,
    /// Whose it is.
    pub subject: String,
}

/// What the clear part of a TLS handshake says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFacts {
    /// Protocols offered in ALPN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// The server's certificate, where it was sent in the clear (TLS up to 1.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateFacts>,
    /// An encrypted_client_hello extension is present; with GREASE that alone proves nothing.
    pub ech: bool,
    /// JA4 fingerprint of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ja4: Option<String>,
    /// Version of QUIC that carried the ClientHello: `1`, `2`, or `draft-29` to `draft-34`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_version: Option<String>,
    /// Server name in the ClientHello, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Version that the server chose, where its hello was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Highest version offered: `1.3`, `1.2`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_offered: Option<String>,
}

/// The first HTTP/1 request of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpFacts {
    /// Host header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Request method.
    pub method: String,
    /// Request path; the query is redacted.
    pub path: String,
}

/// Many conversations counted as one, as there were too many for a record each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// Conversations, or parts of such.
    pub flows: Count,
    /// The peers' network, `192.0.2.0/24` or a /64; absent where even those were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// What a conversation inside a tunnel is carried in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// `ip_in_ip`, `gre`, `vxlan`, `geneve`, `gtp_u`, `teredo`, `ayiya`.
    pub kind: String,
    /// `flow_id` of the conversation that carried its first frame; absent for an aggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_flow_id: Option<Count>,
}

/// One conversation between the sandbox and a peer, as of this record.
///
/// `sent` is what the sandbox sent, `received` what it received. Byte counts
/// without `wire_` are transport payload; `wire_` counts are whole Ethernet
/// frames as the interface counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Set where the record stands for many conversations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// Payload bytes received.
    pub bytes_received: Count,
    /// Payload bytes sent.
    pub bytes_sent: Count,
    /// Runs of client payload ended by server payload, a pause or the end;
    /// a TLS handshake is not a call.
    pub calls: Count,
    /// Community ID 1.0 (seed 0), where the protocol has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
    /// Best name of the peer, or its address.
    pub dst_host: String,
    /// Peer's address; absent where the frame is not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_ip: Option<IpAddr>,
    /// Peer's port; for ICMP absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// Microseconds from the first packet to the last.
    pub duration_us: Count,
    /// Why the conversation ended; only in phase `close`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<FlowEnd>,
    /// EtherType, for protocols that are not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ether_type: Option<u16>,
    /// What is odd about this conversation, in words of a closed list (docs/events.md).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Cow<'static, str>>,
    /// Number of this conversation within the trail, from 1.
    pub flow_id: Count,
    /// Client bytes of a TLS handshake; part of `bytes_sent`, not of a call.
    pub handshake_bytes: Count,
    /// What happened, in the letters of Zeek's `history` (`ShADadFf`); TCP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// First HTTP/1 request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpFacts>,
    /// ICMP type of the first message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// The sandbox's interface, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// IP protocol number, where [`Protocol`] does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_protocol: Option<u8>,
    /// Which call, counted from 1, was the largest; 0 while there is none.
    pub max_call: Count,
    /// Payload bytes of the largest call.
    pub max_call_bytes: Count,
    /// Payload bytes that acknowledgements prove reached the sandbox but the capture did not see.
    pub missed_bytes_received: Count,
    /// Payload bytes that acknowledgements prove the sandbox sent but the capture did not see.
    pub missed_bytes_sent: Count,
    /// Every claim about the peer's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameEvidence>,
    /// Frames received.
    pub packets_received: Count,
    /// Frames sent.
    pub packets_sent: Count,
    /// Open, update or close.
    pub phase: FlowPhase,
    /// Transport or other protocol.
    pub protocol: Protocol,
    /// TCP payload bytes sent again, both ways together; not part of `bytes_*`.
    pub resent_bytes: Count,
    /// Packets that `packets_received` are on a wire, where offloads hand over many
    /// as one; absent where they are as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments_received: Option<Count>,
    /// The same of `packets_sent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments_sent: Option<Count>,
    /// The sandbox's address as its packets claim it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_ip: Option<IpAddr>,
    /// The sandbox's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// When the first packet was seen.
    pub started_at: WallTime,
    /// Connection state in Zeek's words (S0, S1, SF, REJ, …); TCP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Cow<'static, str>>,
    /// TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFacts>,
    /// Set for a conversation inside a tunnel: its bytes are also in the one that
    /// carries it, and its addresses prove nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// VLAN identifier, where tagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Frame bytes received.
    pub wire_bytes_received: Count,
    /// Frame bytes sent.
    pub wire_bytes_sent: Count,
}

/// One DNS question of the sandbox and what came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsQuery {
    /// Answers: addresses and names as they are, other types as a zone file has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// Records of the answer that are not among `answers`: the message ends before
    /// them, or there are more than are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers_left_out: Option<Count>,
    /// What is odd about the question, in words of a closed list (docs/events.md).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Cow<'static, str>>,
    /// Microseconds from question to answer; absent where no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Count>,
    /// Whether an answer from host to sandbox matched this pending question.
    pub matched: bool,
    /// Name asked for, in lower case without a trailing dot.
    pub name: String,
    /// Question type: `A`, `AAAA`, … or its number.
    pub qtype: String,
    /// The record stands for so many questions that are alike, as there were too many
    /// for a record each; their answers are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions: Option<Count>,
    /// Response code: `NOERROR`, `NXDOMAIN`, … or its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// Address that was asked.
    pub resolver: IpAddr,
    /// Whether the settings or the policy accept that resolver's word.
    pub resolver_accepted: bool,
    /// Port that was asked.
    pub resolver_port: u16,
}
