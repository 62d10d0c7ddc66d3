//! Daytona: containers that its runner makes through Docker. They share the
//! host's kernel. Docker says which they are; the kernel says what they have.

mod docker;
mod environment;
mod events;
mod root;
mod rounds;
mod wires;

pub use docker::DockerError;
pub(crate) use docker::{Container, is_same, lists};
pub use events::{ContainerEvent, ContainerEvents};
pub(crate) use root::overlay;
pub use rounds::Containers;
pub(crate) use wires::look;

use crate::claims::{Claims, nameable, quoted};
use crate::ids::is_valid_agent_id;
use sandtrace_event::Layer;

/// Docker labels that are kept. Others may be anything, also secrets.
const LABELS: [&str; 3] = [
    "daytona.organization_id",
    "daytona.organization_name",
    "daytona.sandbox_name",
];

/// Docker labels that name the agent, the first that is there.
const AGENT: [&str; 2] = ["agent_id", "agent"];

impl Container {
    pub(crate) fn claims(&self) -> Claims {
        let mut claims = Claims {
            template: self.template.clone().filter(|text| nameable(text)),
            ..Claims::default()
        };
        for name in LABELS {
            let value = self.labels.get(name).filter(|value| nameable(value));
            let value = value.map(|value| (name.to_owned(), value.clone()));
            claims.labels.extend(value);
        }
        let agent = AGENT.iter().find_map(|name| self.labels.get(*name));
        claims.agent_id = agent.filter(|agent| is_valid_agent_id(agent)).cloned();
        claims.missing(
            Layer::Syscall,
            "the container shares the host's kernel: what is recorded is that kernel's word (tier kernel), and no hypervisor stands below it",
        );
        for mount in &self.mounts {
            let place = quoted(mount);
            claims.missing(
                Layer::Filesystem,
                format!("{place} is a mount of its own: writes below it are not in the container's overlay"),
            );
        }
        claims
    }
}
