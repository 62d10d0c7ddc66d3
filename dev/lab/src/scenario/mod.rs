//! The stories that a sandbox's agent plays: what it starts from, what it is told, and what
//! must be seen of it from outside.

mod expectations;
mod files;

use sandtrace_guest::{Network, Scenario, Script};

use crate::world::World;

pub use expectations::{Expectations, ExpectedConnection, ExpectedFile, expectations};
pub use files::base_tree;

/// What the guest program needs to play a scenario against this world.
#[must_use]
pub fn script(scenario: Scenario, world: &World, network: Network) -> Script {
    Script {
        scenario,
        network,
        ca_pem: world.ca_pem().to_owned(),
    }
}

/// A headline.
#[must_use]
pub fn title(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::StripeExfil => "A payment agent smuggles credentials out in an allowed call",
        Scenario::PersistPlant => "Run 1: a customer's ticket plants an instruction",
        Scenario::PersistAct => "Run 2: the agent remembers, and obeys",
        Scenario::Work => "Plain work on disk and network",
        Scenario::Disorder { .. } => "Random operations on files",
    }
}

/// What is about to happen, in a few sentences for people.
#[must_use]
pub fn story(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::StripeExfil => {
            "The agent may charge customers through api.stripe.com, with calls of up to 4,096 \
             bytes, and may write below /home/agent and /tmp. It makes one honest charge. Then it \
             reads credentials and stuffs them into a second charge on the same encrypted \
             connection, tries to post them to a host nobody allowed, and leaves a cron job \
             behind."
        }
        Scenario::PersistPlant => {
            "The agent charges a customer and reads the customer's ticket. The ticket hides an \
             instruction, and the agent writes it into its memory file. Everything it does is \
             allowed; the trail keeps the digest of what it remembered."
        }
        Scenario::PersistAct => {
            "A new sandbox starts over the same disk. The agent reads its memory, asks a host over \
             plain HTTP whether it is time, sends the credentials to another host and wipes the \
             instruction. The first run's trail still tells when it came."
        }
        Scenario::Work => {
            "The agent writes files and reads them back, sends requests to one host, and says a \
             sum of all that came back, which is the same in every run."
        }
        Scenario::Disorder { .. } => {
            "The agent makes, changes, renames, links and removes files in an order that chance \
             gives, and writes everything to the disk from time to time."
        }
    }
}
