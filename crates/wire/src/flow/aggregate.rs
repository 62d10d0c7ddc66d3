//! Too many conversations to report each: counted by network and port instead.

use crate::findings::Findings;
use crate::packet::Moment;
use crate::tunnel::{TunnelFacts, TunnelKind};
use crate::view::{Aggregate, Endpoint, FlowView, Initiator, Protocol, Traffic};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Conversations counted together, at most [`MAX_SUMS`] sums of them.
#[derive(Debug, Default)]
pub(crate) struct Aggregates {
    sums: HashMap<Key, Sum>,
    /// When to look at them next, while there are any.
    pub(crate) next_us: Option<u64>,
}

/// What conversations that are counted together have in common. Each level is
/// bounded; beyond that less is in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    initiator: Initiator,
    protocol: Protocol,
    /// What carries them, where they are inside of tunnels.
    tunnel: Option<TunnelKind>,
    /// The peers' /24 or /64.
    network: Option<IpAddr>,
    /// The port that the initiator wants.
    port: Option<u16>,
}

/// One sum.
#[derive(Debug)]
pub(crate) struct Sum {
    id: u64,
    key: Key,
    flows: u64,
    sent: Traffic,
    received: Traffic,
    calls: u64,
    max_call_bytes: u64,
    handshake_bytes: u64,
    missed: [u64; 2],
    started: Moment,
    last: Moment,
    findings: Findings,
    pub(crate) opened: bool,
    pub(crate) reported_us: u64,
}

/// Sums by network and port.
const MAX_BY_PORT: usize = 2048;
/// Sums in all but those by protocol alone, of which there are few hundred.
const MAX_SUMS: usize = 4096;

impl Aggregates {
    /// The sum that a conversation belongs to; `id` numbers it if it is new.
    pub(crate) fn place(&mut self, view: &FlowView<'_>, id: u64) -> (Key, bool) {
        let mut key = Key::of(view);
        let len = self.sums.len();
        if !self.sums.contains_key(&key) && len >= MAX_BY_PORT {
            key.port = None;
        }
        if !self.sums.contains_key(&key) && len >= MAX_SUMS {
            key.network = None;
        }
        let is_new = !self.sums.contains_key(&key);
        self.sums
            .entry(key)
            .or_insert_with(|| Sum::new(id, key, view.started));
        (key, is_new)
    }

    /// Counts a conversation in one sum.
    pub(crate) fn fold(&mut self, key: Key, view: &FlowView<'_>) -> Option<&mut Sum> {
        let sum = self.sums.get_mut(&key)?;
        sum.fold(view);
        Some(sum)
    }

    /// All sums in the order of their beginnings.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.sums.values().map(|sum| (sum.id, sum.key)).collect();
        keys.sort_unstable_by_key(|(id, _)| *id);
        keys.into_iter().map(|(_, key)| key).collect()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Sum> {
        self.sums.get_mut(&key)
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.sums.remove(&key);
    }
}

impl Key {
    fn of(view: &FlowView<'_>) -> Self {
        let port = match view.initiator {
            Initiator::Sandbox => view.peer.port,
            Initiator::Outside => view.sandbox.port,
        };
        Self {
            initiator: view.initiator,
            protocol: view.protocol,
            tunnel: view.tunnel.map(|tunnel| tunnel.kind),
            network: view.peer.ip.map(network),
            port,
        }
    }
}

/// The first 24 bits of an IPv4 address, 64 of an IPv6 address.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & !0xff)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

impl Sum {
    fn new(id: u64, key: Key, started: Moment) -> Self {
        Self {
            id,
            key,
            flows: 0,
            sent: Traffic::default(),
            received: Traffic::default(),
            calls: 0,
            max_call_bytes: 0,
            handshake_bytes: 0,
            missed: [0; 2],
            started,
            last: started,
            findings: Findings::default(),
            opened: false,
            reported_us: 0,
        }
    }

    fn fold(&mut self, view: &FlowView<'_>) {
        self.flows += 1;
        self.sent.add(view.sent);
        self.received.add(view.received);
        self.calls += view.calls;
        self.max_call_bytes = self.max_call_bytes.max(view.max_call_bytes);
        self.handshake_bytes += view.handshake_bytes;
        let [sent, received] = self.missed;
        self.missed = [
            sent + view.missed_bytes_sent,
            received + view.missed_bytes_received,
        ];
        if view.last.mono_us >= self.last.mono_us {
            self.last = view.last;
        }
        self.findings = self.findings.union(view.findings);
    }

    /// When it was last added to.
    pub(crate) const fn last_us(&self) -> u64 {
        self.last.mono_us
    }

    /// What a report shows.
    pub(crate) fn view(&self, end: Option<crate::view::End>) -> FlowView<'static> {
        let (sandbox, peer) = match self.key.initiator {
            Initiator::Sandbox => (None, self.key.port),
            Initiator::Outside => (self.key.port, None),
        };
        let end_of = |port| Endpoint { ip: None, port };
        let [missed_bytes_sent, missed_bytes_received] = self.missed;
        FlowView {
            flow_id: self.id,
            initiator: self.key.initiator,
            protocol: self.key.protocol,
            sandbox: end_of(sandbox),
            peer: end_of(peer),
            vlan: None,
            later_fragments: false,
            sent: self.sent,
            received: self.received,
            calls: self.calls,
            max_call: u64::from(self.calls > 0),
            max_call_bytes: self.max_call_bytes,
            handshake_bytes: self.handshake_bytes,
            missed_bytes_sent,
            missed_bytes_received,
            state: None,
            history: None,
            end,
            community_id: None,
            names: Vec::new(),
            host: None,
            tls: None,
            certificate: None,
            http: None,
            icmp_type: None,
            started: self.started,
            last: self.last,
            tunnel: self.key.tunnel.map(|kind| TunnelFacts {
                kind,
                outer_flow: None,
            }),
            aggregate: Some(Aggregate {
                flows: self.flows,
                network: self.key.network.map(|ip| match ip {
                    IpAddr::V4(ip) => format!("{ip}/24"),
                    IpAddr::V6(ip) => format!("{ip}/64"),
                }),
            }),
            findings: self.findings,
        }
    }
}

impl Traffic {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.segments += other.segments;
        self.wire_bytes += other.wire_bytes;
        self.payload_bytes += other.payload_bytes;
        self.resent_bytes += other.resent_bytes;
    }
}

/// How many conversations may still be reported one by one.
#[derive(Debug)]
pub(crate) struct Openings {
    /// In millionths.
    left: u64,
    since_us: u64,
}

const MILLION: u64 = 1_000_000;

impl Openings {
    pub(crate) fn new(burst: u32) -> Self {
        Self {
            left: u64::from(burst) * MILLION,
            since_us: 0,
        }
    }

    /// Takes one, if there is one at this moment.
    pub(crate) fn take(&mut self, now_us: u64, burst: u32, per_second: u32) -> bool {
        let passed_us = now_us.saturating_sub(self.since_us);
        self.since_us = self.since_us.max(now_us);
        let fresh = passed_us.saturating_mul(u64::from(per_second));
        let most = u64::from(burst) * MILLION;
        self.left = self.left.saturating_add(fresh).min(most);
        let Some(left) = self.left.checked_sub(MILLION) else {
            return false;
        };
        self.left = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_a_burst_and_then_a_rate() {
        let mut openings = Openings::new(3);
        let mut take = |now_us| openings.take(now_us, 3, 10);
        assert!(take(0) && take(0) && take(0));
        assert!(!take(0) && !take(99_999));
        assert!(take(100_000));
        assert!(!take(150_000));
        assert!(take(10_000_000) && take(10_000_000) && take(10_000_000));
        assert!(!take(10_000_000));
    }
}
