//! Judges recorded events again, by another policy or the same.

use crate::exit::{Exit, Failure, OrExit as _};
use crate::policy_file::LoadedPolicy;
use sandtrace_audit_chain::{Report, TrailReader};
use sandtrace_event::{AuditEvent, Payload, Verdict, VerdictResult};
use sandtrace_policy::Engine;
use std::fs::File;
use std::net::IpAddr;

/// Violations that are listed; beyond these they are counted.
const LISTED: usize = 1000;

/// What another judgement says.
pub(crate) struct Rejudged {
    pub(crate) policy_path: String,
    pub(crate) policy_digest: String,
    /// Records that the policy does not allow.
    pub(crate) violations: u64,
    /// Records whose verdict is another than the one recorded.
    pub(crate) differing: u64,
    /// The first violations.
    pub(crate) listed: Vec<Violation>,
}

/// A record that the policy does not allow.
pub(crate) struct Violation {
    pub(crate) seq: u64,
    pub(crate) what: String,
    pub(crate) verdict: Verdict,
}

/// Judges every event of a trail that was found intact.
pub(crate) fn rejudge(
    trail: &File,
    policy: &LoadedPolicy,
    report: &Report,
    resolvers: &[IpAddr],
) -> Result<Rejudged, Failure> {
    let recorded = report.start.iter().flat_map(|start| &start.resolvers);
    let mut accepted: Vec<IpAddr> = recorded.filter_map(|text| text.parse().ok()).collect();
    accepted.extend_from_slice(resolvers);
    let mut engine = Engine::new(policy.policy.clone(), &accepted);
    let mut result = Rejudged {
        policy_path: policy.path.display().to_string(),
        policy_digest: policy.digest.to_string(),
        violations: 0,
        differing: 0,
        listed: Vec::new(),
    };
    let mut reader = TrailReader::new(trail);
    while let Some(event) = reader.next_event().or_exit(Exit::Malformed)? {
        let Some(verdict) = engine.judge(&event.observation()).verdict else {
            continue;
        };
        let before = event.verdict.as_ref().map(|verdict| verdict.result);
        result.differing += u64::from(before != Some(verdict.result));
        if verdict.result != VerdictResult::Allow {
            result.violations += 1;
            if result.listed.len() < LISTED {
                let what = subject(&event);
                result.listed.push(Violation {
                    seq: event.seq.0,
                    what,
                    verdict,
                });
            }
        }
    }
    Ok(result)
}

/// What an event is about, in few words.
fn subject(event: &AuditEvent) -> String {
    let flow = |flow: &sandtrace_event::Flow| match flow.dst_port {
        Some(port) => format!("{}:{port}", flow.dst_host),
        None => flow.dst_host.clone(),
    };
    match &event.payload {
        Payload::NetworkEgress(egress) => flow(egress),
        Payload::NetworkIngress(ingress) => format!("from {}", flow(&ingress.0)),
        Payload::DnsQuery(query) => format!("dns {} {}", query.qtype, query.name),
        Payload::FilesystemChange(change) => change.path.clone(),
        _ => event.event_type.to_string(),
    }
}
