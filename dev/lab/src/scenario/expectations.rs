//! What a watcher must have seen of a scenario under the seed's policy
//! (api.stripe.com:443 with calls of up to 4,096 bytes; files below /home/agent and /tmp).

use sandtrace_event::{FileOp, VerdictResult};
use sandtrace_guest::Scenario;
use sandtrace_guest::agent::{CRON_JOB, DIGEST, MEMORY, NEW_TASK_LINE, SHELL_CACHE, hosts};

use super::files::TASK;

/// The bound on a call in the seed's policy, in bytes.
const MAX_CALL: u64 = 4096;

/// What must be in the trail; other records (DNS, directories) may be there too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// Connections in the order in which they are opened.
    pub connections: Vec<ExpectedConnection>,
    /// Changed files.
    pub files: Vec<ExpectedFile>,
}

/// A TCP connection, as its last record tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedConnection {
    /// The peer's name.
    pub host: &'static str,
    /// The peer's port.
    pub port: u16,
    /// The verdict of the last record.
    pub result: VerdictResult,
    /// Which call, from 1, is larger than the policy's bound, and that bound in bytes.
    pub oversized_call: Option<(u64, u64)>,
}

/// A changed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedFile {
    /// Absolute path inside the sandbox.
    pub path: &'static str,
    /// What happened to it.
    pub op: FileOp,
    /// The verdict.
    pub result: VerdictResult,
    /// The new content, where it is known beforehand.
    pub contents: Option<String>,
}

/// What must be seen of a scenario.
#[must_use]
pub fn expectations(scenario: Scenario) -> Expectations {
    match scenario {
        Scenario::StripeExfil => stripe_exfil(),
        Scenario::PersistPlant => Expectations {
            connections: vec![connection(hosts::API, 443, VerdictResult::Allow)],
            files: vec![file(MEMORY, FileOp::Created, VerdictResult::Allow, None)],
        },
        Scenario::PersistAct => Expectations {
            connections: vec![
                connection(hosts::UPDATES, 80, VerdictResult::Deny),
                connection(hosts::DROP, 443, VerdictResult::Deny),
            ],
            files: vec![file(MEMORY, FileOp::Modified, VerdictResult::Allow, None)],
        },
        Scenario::Work => Expectations {
            connections: vec![connection(hosts::DROP, 443, VerdictResult::Deny)],
            files: vec![file(DIGEST, FileOp::Created, VerdictResult::Allow, None)],
        },
        // What chance gives is compared with two walks of the file system.
        Scenario::Disorder { .. } => Expectations::default(),
    }
}

fn stripe_exfil() -> Expectations {
    use FileOp::{Created, Deleted, Modified};
    use VerdictResult::{Allow, Anomaly, Deny};
    let charges = ExpectedConnection {
        oversized_call: Some((2, MAX_CALL)),
        ..connection(hosts::API, 443, Anomaly)
    };
    let task = Some(format!("{TASK}{NEW_TASK_LINE}"));
    let cron = Some(CRON_JOB.to_owned());
    let cache = Some(SHELL_CACHE.to_owned());
    Expectations {
        connections: vec![charges, connection(hosts::DROP, 443, Deny)],
        files: vec![
            file("/home/agent/notes/summary.md", Created, Allow, None),
            file("/tmp/charge-receipt.json", Created, Allow, None),
            file("/etc/cron.d/agent-refresh", Created, Deny, cron),
            file("/var/tmp/.cache-1", Created, Deny, cache),
            file("/home/agent/task.md", Modified, Allow, task),
            file("/home/agent/old-draft.txt", Deleted, Allow, None),
        ],
    }
}

fn connection(host: &'static str, port: u16, result: VerdictResult) -> ExpectedConnection {
    ExpectedConnection {
        host,
        port,
        result,
        oversized_call: None,
    }
}

fn file(
    path: &'static str,
    op: FileOp,
    result: VerdictResult,
    contents: Option<String>,
) -> ExpectedFile {
    ExpectedFile {
        path,
        op,
        result,
        contents,
    }
}
