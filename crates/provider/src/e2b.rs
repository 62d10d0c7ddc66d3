//! E2B's self-hosted orchestrator: Firecracker, not jailed, in a network
//! namespace of a pool. Every sandbox has the same configuration; what sets
//! it apart is the name of its API socket,
//! `<folder>/fc-<sandbox id>-<random>.sock`, and its metadata.

use crate::claims::{Claims, nameable, quoted};
use crate::firecracker::{self, Arguments};
use sandtrace_event::Layer;
use sandtrace_sys::process::Process;
use serde::Deserialize;
use std::time::Instant;

/// One run of a sandbox: a resumed one has the same id and another suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) sandbox_id: String,
    run: String,
}

/// What the orchestrator tells its guest. The address and the hash of the
/// access token, which are there too, are not looked at.
#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "instanceID")]
    instance: Option<String>,
    #[serde(rename = "envID")]
    template: Option<String>,
}

impl Instance {
    /// `None` where the arguments are not the orchestrator's: it gives a
    /// socket of that name and no `--id`.
    pub(crate) fn of(arguments: &Arguments) -> Option<Self> {
        if arguments.claimed_id.is_some() {
            return None;
        }
        let name = arguments.api_socket.as_ref()?.file_name()?.to_str()?;
        let middle = name.strip_prefix("fc-")?.strip_suffix(".sock")?;
        let (sandbox_id, run) = middle.split_once('-')?;
        let lower = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let is_id = sandbox_id.starts_with('i') && lower(sandbox_id);
        let is_run = !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_id && is_run).then(|| Self {
            sandbox_id: sandbox_id.to_owned(),
            run: run.to_owned(),
        })
    }

    /// The name of this run alone.
    pub(crate) fn alias(&self) -> String {
        format!("{}-{}", self.sandbox_id, self.run)
    }

    pub(crate) fn claims(
        &self,
        process: &Process,
        arguments: &Arguments,
        deadline: Instant,
    ) -> Claims {
        let (mut claims, metadata) = firecracker::claims(process, arguments, deadline);
        claims.labels.insert("e2b.run".to_owned(), self.run.clone());
        // The same paths for all sandboxes, in a mount namespace of their own:
        // which disk it is, only the open descriptor says.
        claims.drives.clear();
        let metadata = metadata.and_then(|json| serde_json::from_slice::<Metadata>(&json).ok());
        let Some(Metadata { instance, template }) = metadata else {
            return claims;
        };
        if let Some(other) = instance.filter(|id| *id != self.sandbox_id) {
            let other = quoted(&other);
            claims.missing(
                Layer::Network,
                format!("its metadata name another sandbox, {other}, and are not used"),
            );
            claims.agent_id = None;
        } else {
            claims.template = template.filter(|template| nameable(template));
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<(&str, &str)>) {
        let words = line.split_whitespace().map(|word| word.as_bytes().to_vec());
        let instance = Instance::of(&Arguments::parse(&words.collect::<Vec<_>>()));
        let found = instance
            .as_ref()
            .map(|it| (it.sandbox_id.as_str(), it.run.as_str()));
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn sockets_of_the_orchestrator() {
        let run = Some(("i1a2b3c4d5e6f7g8h9j0k", "x7Yz"));
        check("--api-sock /tmp/fc-i1a2b3c4d5e6f7g8h9j0k-x7Yz.sock", run);
        check(
            "--api-sock /var/e2b/fc-i1a2b3c4d5e6f7g8h9j0k-x7Yz.sock",
            run,
        );
        check("--api-sock fc-iabc-.sock", None);
        check("--api-sock fc-abc-x.sock", None);
        check("--api-sock fc-iABC-x.sock", None);
        check("--api-sock fc-i..-x.sock", None);
        check("--api-sock fc-iabc-x.socket", None);
        check("--id vm --api-sock /tmp/fc-iabc-x.sock", None);
        check("--no-api --api-sock /tmp/fc-iabc-x.sock", None);
        check("", None);
    }
}
