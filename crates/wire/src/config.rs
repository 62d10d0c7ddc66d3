//! Settings of a flow table.

use std::net::IpAddr;

const SECOND: u64 = 1_000_000;

/// Settings of a [`FlowTable`](crate::FlowTable). Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowConfig {
    /// How flows are numbered.
    pub numbering: Numbering,
    /// Most flows at once; the idlest is closed to make room.
    pub max_flows: usize,
    /// Longest wait for a flow's name before it is reported open.
    pub open_delay_us: u64,
    /// Interval between reports of a flow that goes on.
    pub update_interval_us: u64,
    /// A TCP connection is over after this long without a packet.
    pub tcp_idle_us: u64,
    /// A TCP connection attempt is over this long after its begin, if there is
    /// no answer by then.
    pub tcp_attempt_us: u64,
    /// A TCP connection whose end is all that was seen of one side is over
    /// after this long without a packet.
    pub tcp_remainder_us: u64,
    /// How long a TCP connection is kept after its end for stragglers.
    pub tcp_linger_us: u64,
    /// A UDP conversation is over after this long without a packet.
    pub udp_idle_us: u64,
    /// Any other conversation is over after this long without a packet.
    pub other_idle_us: u64,
    /// A silence of the client this long ends its call, where set.
    pub call_pause_us: Option<u64>,
    /// Longest wait for a DNS answer.
    pub dns_timeout_us: u64,
    /// Most DNS questions waiting for an answer at once.
    pub max_dns_pending: usize,
    /// Most addresses whose DNS names are remembered.
    pub max_named_addresses: usize,
    /// Resolvers whose word counts as evidence.
    pub accepted_resolvers: Vec<IpAddr>,
    /// The sandbox's own addresses. Where given, another source address is a finding.
    pub sandbox_addresses: Vec<IpAddr>,
    /// Addresses of the host. Who goes there of the sandbox's own accord is a finding.
    pub host_addresses: Vec<IpAddr>,
    /// All frames are the sandbox's or for it: report a source MAC of its that is not its
    /// first one, and a second neighbour by which it sends to public addresses.
    pub check_macs: bool,
    /// How long fragments wait for the rest of their datagram.
    pub fragment_timeout_us: u64,
    /// Flows that may be reported one by one at once; beyond that, those that
    /// have not been reported yet are counted together (see [`Aggregate`](crate::Aggregate)).
    pub open_burst: u32,
    /// Flows that may be reported one by one each second, in the long run.
    pub opens_per_second: u32,
    /// DNS questions that may be reported one by one at once; each second as many
    /// more as flows. Beyond that, those that are alike are counted together.
    pub dns_burst: u32,
    /// Most bytes of one direction of one connection that are read for names.
    pub reassembly_bytes: usize,
    /// Most bytes held for reassembly in the whole table.
    pub reassembly_bytes_total: usize,
}

/// The numbers that a table gives its flows. Tables that report into one trail
/// take turns, so that a number names one flow in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    first: u64,
    step: u64,
}

impl Numbering {
    /// That of the table at `index` of `tables`: `index + 1`, and every
    /// `tables`-th from there on.
    #[must_use]
    pub fn of(index: usize, tables: usize) -> Self {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let tables = u64::try_from(tables).unwrap_or(u64::MAX);
        Self {
            first: index.saturating_add(1),
            step: tables.max(1),
        }
    }

    /// That of a table which reports into a trail where others do already,
    /// whose count nobody knew: far above their numbers, `later` from 1 on.
    #[must_use]
    pub fn apart(later: u32) -> Self {
        Self {
            first: (u64::from(later) << 40).saturating_add(1),
            step: 1,
        }
    }

    /// Whether there are, or were, other tables that report into the same trail.
    #[must_use]
    pub const fn shares_trail(self) -> bool {
        self.first > 1 || self.step > 1
    }

    /// The number of the flow before which `earlier` ones began in this table.
    #[must_use]
    pub(crate) fn after(self, earlier: u64) -> u64 {
        self.first.saturating_add(earlier.saturating_mul(self.step))
    }
}

impl Default for Numbering {
    /// 1, 2, 3, …: of a table that has its trail to itself.
    fn default() -> Self {
        Self::of(0, 1)
    }
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            numbering: Numbering::default(),
            max_flows: 65_536,
            open_delay_us: 100_000,
            update_interval_us: 60 * SECOND,
            tcp_idle_us: 30 * 60 * SECOND,
            tcp_attempt_us: 60 * SECOND,
            tcp_remainder_us: 10 * SECOND,
            tcp_linger_us: 2 * SECOND,
            udp_idle_us: 60 * SECOND,
            other_idle_us: 60 * SECOND,
            call_pause_us: None,
            dns_timeout_us: 5 * SECOND,
            max_dns_pending: 4_096,
            max_named_addresses: 16_384,
            accepted_resolvers: Vec::new(),
            sandbox_addresses: Vec::new(),
            host_addresses: Vec::new(),
            check_macs: false,
            fragment_timeout_us: 30 * SECOND,
            open_burst: 65_536,
            opens_per_second: 1_000,
            dns_burst: 8_192,
            reassembly_bytes: 64 * 1024,
            reassembly_bytes_total: 16 * 1024 * 1024,
        }
    }
}
