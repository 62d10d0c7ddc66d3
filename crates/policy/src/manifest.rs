//! What a manifest says, after every check: plain values, no places.

use crate::cidr::Cidr;
use crate::host::HostPattern;
use crate::path::PathPattern;
use crate::ports::Ports;
use crate::profile::{CHILD, Profile};
use sandtrace_event::Protocol;
use std::net::IpAddr;

/// A word of a closed list that the manifest uses.
pub(crate) trait Word: Copy + 'static {
    const ALL: &'static [(&'static str, Self)];
}

macro_rules! words {
    ($type:ty { $($word:literal => $value:expr,)* }) => {
        impl $crate::manifest::Word for $type {
            const ALL: &'static [(&'static str, Self)] = &[$(($word, $value),)*];
        }
    };
}

pub(crate) use words;

/// The word for a value.
pub(crate) fn word<T: Word + PartialEq>(value: T) -> &'static str {
    let found = T::ALL.iter().find(|(_, own)| *own == value);
    found.map_or("?", |(word, _)| word)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) rules: Vec<Rule>,
    pub(crate) defaults: Defaults,
    /// Resolvers whose answers are evidence.
    pub(crate) resolvers: Vec<IpAddr>,
}

/// What holds where the rules say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    /// Network events of a type for which there is no rule at all.
    pub(crate) network: Fallback,
    /// The same for file system changes.
    pub(crate) filesystem: Fallback,
    /// VMM system calls where there is neither a rule nor a profile; an
    /// anomaly if the manifest does not say.
    pub(crate) syscall: Option<Fallback>,
    /// For rules that do not say it themselves.
    pub(crate) min_name_evidence: MinEvidence,
    pub(crate) private_addresses: PrivateAddresses,
    pub(crate) ech: Ech,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fallback {
    #[default]
    Deny,
    Anomaly,
    Allow,
}

words!(Fallback {
    "deny" => Self::Deny,
    "anomaly" => Self::Anomaly,
    "allow" => Self::Allow,
});

/// How well a name must be proven before it allows anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MinEvidence {
    /// The client's word is enough.
    Claimed,
    /// An accepted resolver's answer for the address.
    Dns,
    /// Both, and they agree.
    #[default]
    Consistent,
}

words!(MinEvidence {
    "claimed" => Self::Claimed,
    "dns" => Self::Dns,
    "consistent" => Self::Consistent,
});

/// Which rules may allow a private address or one of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PrivateAddresses {
    /// Rules by name too: whoever answers for the name decides where it leads.
    #[default]
    ByName,
    /// Only rules by address.
    ByAddress,
}

words!(PrivateAddresses {
    "by-name" => Self::ByName,
    "by-address" => Self::ByAddress,
});

/// What an encrypted part of a TLS hello (ECH) means for a rule by name. Browsers
/// send one to every server, with nothing in it where they do not know its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ech {
    #[default]
    Allow,
    Anomaly,
}

words!(Ech {
    "allow" => Self::Allow,
    "anomaly" => Self::Anomaly,
});

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) action: Action,
    pub(crate) body: Body,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    #[default]
    Allow,
    Deny,
}

words!(Action {
    "allow" => Self::Allow,
    "deny" => Self::Deny,
});

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Egress(Network),
    Ingress(Network),
    Files(Files),
    /// Names that may (not) be looked up.
    Dns(Vec<HostPattern>),
    Syscalls(Syscalls),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleType {
    Egress,
    Ingress,
    Files,
    Dns,
    Syscalls,
}

words!(RuleType {
    "network_egress" => Self::Egress,
    "network_ingress" => Self::Ingress,
    "filesystem" => Self::Files,
    "dns_query" => Self::Dns,
    "syscall" => Self::Syscalls,
});

impl Body {
    pub(crate) fn rule_type(&self) -> RuleType {
        match self {
            Self::Egress(_) => RuleType::Egress,
            Self::Ingress(_) => RuleType::Ingress,
            Self::Files(_) => RuleType::Files,
            Self::Dns(_) => RuleType::Dns,
            Self::Syscalls(_) => RuleType::Syscalls,
        }
    }
}

/// Peers and what bounds the conversations with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) peers: Vec<Peer>,
    pub(crate) max_bytes_per_call: Option<u64>,
    pub(crate) max_bytes_total: Option<u64>,
    /// Conversations open at the same time.
    pub(crate) max_connections: Option<u32>,
    pub(crate) min_name_evidence: Option<MinEvidence>,
}

/// One of a rule's destinations or sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) who: Who,
    /// `None`: any, and protocols without ports.
    pub(crate) ports: Option<Ports>,
    pub(crate) protocol: Option<Transport>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Host(HostPattern),
    Range(Cidr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
}

words!(Transport {
    "tcp" => Self::Tcp,
    "udp" => Self::Udp,
    "icmp" => Self::Icmp,
    "icmpv6" => Self::Icmpv6,
});

impl Transport {
    pub(crate) fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }

    pub(crate) fn is(self, protocol: Protocol) -> bool {
        let own = match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Icmp => Protocol::Icmp,
            Self::Icmpv6 => Protocol::Icmpv6,
        };
        own == protocol
    }
}

impl Peer {
    pub(crate) fn takes(&self, protocol: Protocol, port: Option<u16>) -> bool {
        let port_fits = match (&self.ports, port) {
            (None, _) => true,
            (Some(ports), Some(port)) => ports.contains(port),
            (Some(_), None) => false,
        };
        port_fits && self.protocol.is_none_or(|own| own.is(protocol))
    }

    /// Whether whatever `other` matches is matched by this too (see
    /// [`HostPattern::covers`]).
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let who = match (&self.who, &other.who) {
            (Who::Host(own), Who::Host(other)) => own.covers(other),
            (Who::Range(own), Who::Range(other)) => own.covers(*other),
            _ => false,
        };
        let ports = match (&self.ports, &other.ports) {
            (None, _) => true,
            (Some(own), Some(other)) => own.covers(other),
            (Some(_), None) => false,
        };
        who && ports && (self.protocol.is_none() || self.protocol == other.protocol)
    }
}

/// What the VMM may ask of the host's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Syscalls {
    /// Findings about the VMM's confinement that are as they should be.
    pub(crate) accept: Vec<Acceptable>,
    pub(crate) allow: Vec<String>,
    pub(crate) deny: Vec<String>,
    pub(crate) profile: Option<Profile>,
    /// Thread groups that the rule is about; empty: all of the VMM's own.
    pub(crate) threads: Vec<String>,
}

impl Syscalls {
    /// Whether the rule is about a thread group. Processes that the VMM
    /// started are meant only where a rule names them, or denies.
    pub(crate) fn concerns(&self, group: &str) -> bool {
        if self.threads.is_empty() {
            group != CHILD || self.allow.is_empty() && self.profile.is_none()
        } else {
            self.threads.iter().any(|own| own == group)
        }
    }
}

/// A finding that a rule can accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptable {
    NoSeccomp,
    NewPrivsPossible,
}

words!(Acceptable {
    "no_seccomp" => Self::NoSeccomp,
    "new_privs_possible" => Self::NewPrivsPossible,
});

/// Paths and what may happen to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) access: Access,
    pub(crate) max_file_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// No change at all.
    ReadOnly,
    /// Created, modified, metadata.
    ReadWrite,
    /// Also deleted and renamed.
    #[default]
    Full,
}

words!(Access {
    "read-only" => Self::ReadOnly,
    "read-write" => Self::ReadWrite,
    "full" => Self::Full,
});
