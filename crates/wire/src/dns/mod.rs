//! DNS: messages, and the join of answers to pending questions.

use std::net::IpAddr;

/// One question of the sandbox and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsTransaction {
    /// Name asked for, in lower case without a trailing dot; the root is `.`.
    pub name: String,
    /// Question type: `A`, `AAAA`, … or `TYPE` and its number.
    pub qtype: String,
    /// Address that was asked.
    pub resolver: IpAddr,
    /// Port that was asked.
    pub resolver_port: u16,
    /// Whether that resolver is an accepted one.
    pub resolver_accepted: bool,
    /// Addresses and canonical names that were answered.
    pub answers: Vec<String>,
    /// Response code: `NOERROR`, `NXDOMAIN`, … or `RCODE` and its number;
    /// absent where no answer came.
    pub rcode: Option<String>,
    /// Microseconds from question to answer; absent where either is missing.
    pub latency_us: Option<u64>,
    /// Whether an answer to the sandbox matched a pending question.
    pub matched: bool,
}
