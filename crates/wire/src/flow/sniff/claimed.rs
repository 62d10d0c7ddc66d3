//! The names that a client uses, held against each other.

use super::{Facts, Sniff};
use crate::findings::Finding;
use crate::http::Head;
use crate::names::NameSource;
use crate::text;
use std::net::IpAddr;

impl Sniff {
    /// A proxy was asked for this host.
    pub(super) fn claim_target(&mut self, host: Option<&[u8]>, facts: &mut Facts) {
        let name = host.map(text::host_name).filter(|name| !name.is_empty());
        if let Some(name) = name {
            facts.named.push((name.clone(), NameSource::SocksHost));
            self.host = Some(name);
        }
    }

    /// A request names its host.
    pub(super) fn claim_hosts(&mut self, head: Head, facts: &mut Facts) {
        if head.ambiguous {
            self.findings.insert(Finding::HostAmbiguous);
        }
        if let Some(host) = &head.facts.host {
            if self.differs(host) {
                self.findings.insert(Finding::HostChanged);
            }
            self.host = Some(host.clone());
        }
        let hosts = head.hosts.into_iter();
        facts
            .named
            .extend(hosts.map(|host| (host, NameSource::HttpHost)));
        self.is_inner |= head.switches;
        if facts.http.is_none() {
            facts.http = Some(head.facts);
        }
    }

    /// The hellos of a TLS connection inside name their servers.
    pub(super) fn claim_inner(&mut self, names: Vec<String>, facts: &mut Facts) {
        for name in names {
            if self.differs(&name) {
                self.findings.insert(Finding::SniDiffersFromHost);
            }
            facts.named.push((name, NameSource::TlsSni));
        }
    }

    /// Whether another host was named before. Who asks a proxy for an address
    /// still names the host to it.
    fn differs(&self, name: &str) -> bool {
        let is_address = |before: &str| before.parse::<IpAddr>().is_ok();
        self.host
            .as_deref()
            .is_some_and(|before| before != name && !(self.is_inner && is_address(before)))
    }
}
