//! Judges recorded events again, by another policy or the same.

use crate::exit::{Exit, Failure, OrExit as _};
use crate::policy_file::LoadedPolicy;
use sandtrace_audit_chain::{Report, TrailReader};
use sandtrace_event::{AuditEvent, Payload, Verdict, VerdictResult};
use sandtrace_policy::Engine;
use std::io::Read;
use std::net::IpAddr;

/// Violations that are kept; beyond these they are counted.
const KEPT: usize = 1000;

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

/// A policy, and the resolvers whose answers count.
pub(crate) struct Judge<'a> {
    pub(crate) policy: &'a LoadedPolicy,
    pub(crate) resolvers: &'a [IpAddr],
}

impl Judge<'_> {
    /// Judges every event of a trail that was found intact.
    pub(crate) fn rejudge(&self, trail: impl Read, report: &Report) -> Result<Rejudged, Failure> {
        let mut result = Rejudged {
            policy_path: self.policy.path.display().to_string(),
            policy_digest: self.policy.digest.to_string(),
            violations: 0,
            differing: 0,
            listed: Vec::new(),
        };
        self.walk(trail, report, |event, verdict| {
            let before = event.verdict.as_ref().map(|verdict| verdict.result);
            result.differing += u64::from(before != Some(verdict.result));
            if verdict.result != VerdictResult::Allow {
                result.violations += 1;
                if result.listed.len() < KEPT {
                    result.listed.push(Violation::of(event, verdict));
                }
            }
            Ok(())
        })?;
        Ok(result)
    }

    /// Judges once more and hands on each violation.
    pub(crate) fn each_violation(
        &self,
        trail: impl Read,
        report: &Report,
        mut hear: impl FnMut(&Violation) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.walk(trail, report, |event, verdict| match verdict.result {
            VerdictResult::Allow => Ok(()),
            VerdictResult::Anomaly | VerdictResult::Deny => hear(&Violation::of(event, verdict)),
        })
    }

    fn walk(
        &self,
        trail: impl Read,
        report: &Report,
        mut hear: impl FnMut(&AuditEvent, Verdict) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let recorded = report.start.iter().flat_map(|start| &start.resolvers);
        let mut accepted: Vec<IpAddr> = recorded.filter_map(|text| text.parse().ok()).collect();
        accepted.extend_from_slice(self.resolvers);
        let mut engine = Engine::new(self.policy.policy.clone(), &accepted);
        let mut reader = TrailReader::new(trail);
        // What was appended since it was verified is not judged.
        for _ in 0..report.records {
            let Some(event) = reader.next_event().or_exit(Exit::Malformed)? else {
                break;
            };
            if let Some(verdict) = engine.judge(&event.observation()).verdict {
                hear(&event, verdict)?;
            }
        }
        Ok(())
    }
}

impl Violation {
    fn of(event: &AuditEvent, verdict: Verdict) -> Self {
        Self {
            seq: event.seq.0,
            what: subject(event),
            verdict,
        }
    }
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
        Payload::CaptureGap(gap) => gap.source.clone(),
        _ => event.event_type.to_string(),
    }
}
