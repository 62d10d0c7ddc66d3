//! What the guest program is to do, decided by the lab before the sandbox starts.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Everything the guest program needs for one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Which story the agent plays.
    pub scenario: Scenario,
    /// How the sandbox is connected.
    pub network: Network,
    /// The certificate of the lab's authority, PEM; the only root the agent trusts.
    pub ca_pem: String,
}

/// The stories an agent can play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Charges a customer, then smuggles credentials out in a second charge.
    StripeExfil,
    /// Leaves an instruction for a later run in its memory file.
    PersistPlant,
    /// Finds that instruction and follows it.
    PersistAct,
    /// Works on disk and network, and says a sum that is the same in every run.
    Work,
    /// Does random operations on files.
    Disorder {
        /// Where the random numbers begin.
        seed: u64,
        /// How many.
        operations: u32,
    },
}

/// The one network interface of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The sandbox's own address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// The host's end of the link and the only way out.
    pub gateway: Ipv4Addr,
    /// The DNS resolver, asked over UDP port 53.
    pub resolver: Ipv4Addr,
}

impl Network {
    /// The link every lab sandbox has: 10.0.0.2/24, the host at 10.0.0.1.
    #[must_use]
    pub const fn behind_tap(resolver: Ipv4Addr) -> Self {
        Self {
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            resolver,
        }
    }
}
