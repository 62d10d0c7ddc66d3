//! The closed list of oddities that a flow can have.

use std::fmt;

macro_rules! findings {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Something odd about a flow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Finding { $($(#[$doc])* $variant,)* }

        impl Finding {
            /// Every finding there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word that stands in records.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

findings! {
    /// The TLS server name is not among the DNS answers for the peer's address.
    SniNotInDns = "sni_not_in_dns",
    /// A proxy was asked for one host (CONNECT, SOCKS), and the TLS hello inside
    /// names another.
    SniDiffersFromHost = "sni_differs_from_host",
    /// One connection named two different hosts in its TLS hellos, or in one.
    SniChanged = "sni_changed",
    /// Overlapping TCP segments carried different bytes.
    InconsistentReassembly = "inconsistent_reassembly",
    /// The sandbox used a source address that is not its own.
    SpoofedSource = "spoofed_source",
    /// The sandbox sent to public addresses by more than one neighbour.
    NextHopChanged = "next_hop_changed",
    /// The sandbox asked a resolver that is not accepted.
    DnsUnacceptedResolver = "dns_unaccepted_resolver",
    /// A DNS answer matched no pending question.
    DnsUnmatchedAnswer = "dns_unmatched_answer",
    /// A message on the DNS port that is not DNS, or more than questions are (another
    /// operation, bytes that no question has), or over TCP one that was not read: too
    /// much out of order, behind a gap or one of the bounds.
    DnsMalformed = "dns_malformed",
    /// The peer is a cloud's metadata service.
    MetadataAddress = "metadata_address",
    /// A header is cut short or states a length that the frame does not have.
    TruncatedHeader = "truncated_header",
    /// The sandbox sent bytes after the end that the IP header states.
    TrailingBytes = "trailing_bytes",
    /// The TLS handshake is larger than handshakes are.
    OversizedHandshake = "oversized_handshake",
    /// Far more was sent again than loss explains.
    ExcessRetransmission = "excess_retransmission",
    /// The table's reassembly memory was used up, so this flow's start was not read.
    ReassemblyLimit = "reassembly_limit",
    /// IP fragments that could not be joined, so that their connection is not known.
    Fragmented = "fragmented",
    /// IP fragments of one datagram overlapped.
    OverlappingFragments = "overlapping_fragments",
    /// The sandbox sent from a MAC that is not the one it began with.
    SpoofedMac = "spoofed_mac",
    /// DNS over TLS (port 853 or ALPN `dot`): questions that cannot be read.
    DnsOverTls = "dns_over_tls",
    /// DNS over QUIC (port 853 or ALPN `doq`): questions that cannot be read.
    DnsOverQuic = "dns_over_quic",
    /// DNS over HTTPS, by the name or address of a public service or the
    /// request's path: questions that cannot be read.
    DnsOverHttps = "dns_over_https",
    /// DNS on a port that is not 53.
    DnsOddPort = "dns_odd_port",
    /// Questions that look like data: long or random labels, again and again.
    DnsTunnelling = "dns_tunnelling",
    /// The names in the server's certificate do not cover the name the client asked for.
    CertNameMismatch = "cert_name_mismatch",
    /// The client named a host with more bytes than names have; the rest is left out.
    NameTooLong = "name_too_long",
    /// The capture took too few bytes of the packets in which the client may
    /// have named a host.
    TruncatedStart = "truncated_start",
    /// The host of an HTTP request, or the one that a SOCKS proxy was asked for, is
    /// not among the DNS answers for the peer's address.
    HostNotInDns = "host_not_in_dns",
    /// The sandbox began a conversation with an address of a private network, a
    /// link or the machine itself, and not with an accepted resolver.
    PrivateAddress = "private_address",
    /// The sandbox began a conversation with an address of the host that watches it.
    HostAddress = "host_address",
    /// The sandbox began a WireGuard tunnel, of which nothing inside can be read.
    Wireguard = "wireguard",
    /// The HTTP requests of one connection named different hosts.
    HostChanged = "host_changed",
    /// An HTTP request names several hosts, or one that servers read differently.
    HostAmbiguous = "host_ambiguous",
    /// Reading the start of the connection, or a later request of HTTP/1, ended
    /// early, at one of the bounds or at something that could not be read, or misses
    /// bytes of a connection whose handshake was not seen: a host may have been named
    /// there.
    StartUnread = "start_unread",
    /// Bytes that TCP calls urgent lay where the client may have named a host;
    /// what the server read is not known.
    TcpUrgent = "tcp_urgent",
    /// The sandbox's frames bear far more outside of what they carry than headers take.
    LargeHeaders = "large_headers",
    /// The sandbox sent payload after a second handshake on the same addresses and
    /// ports that the server did not answer: which connection the server took it
    /// for is not known.
    SynAgain = "syn_again",
    /// DNS may have given the peer's address names that are forgotten: there were
    /// more, of it or of all addresses, than are remembered.
    NamesForgotten = "names_forgotten",
}

/// A set of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings(u64);

impl Findings {
    /// Adds one; says whether it is new.
    pub fn insert(&mut self, finding: Finding) -> bool {
        let before = self.0;
        self.0 |= Self::bit(finding);
        self.0 != before
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn contains(self, finding: Finding) -> bool {
        self.0 & Self::bit(finding) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The findings in the order of [`Finding::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Finding> {
        Finding::ALL
            .iter()
            .copied()
            .filter(move |f| self.contains(*f))
    }

    const fn bit(finding: Finding) -> u64 {
        1 << finding as u32
    }
}

impl FromIterator<Finding> for Findings {
    fn from_iter<I: IntoIterator<Item = Finding>>(iter: I) -> Self {
        let mut set = Self::default();
        for finding in iter {
            set.insert(finding);
        }
        set
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
