//! Judging observations, one sandbox at a time.

mod builtin;
mod connections;
mod dns;
mod evidence;
mod files;
mod findings;
mod network;
mod reason;
mod syscalls;

pub use syscalls::is_alarm_call;

pub(crate) use reason::{Shown, grouped};

use crate::Policy;
use crate::manifest::Fallback;
use connections::Connections;
use sandtrace_event::{Limits, Observation, Payload, Verdict, VerdictResult};
use std::net::IpAddr;
use std::sync::Arc;

/// What the policy says of one observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The answer; `None` for control records, save those of what of a disk
    /// could not be seen.
    pub verdict: Option<Verdict>,
    /// What bounds the observation's subject from now on.
    pub limits: Limits,
}

/// Judges what one sandbox does, in the order in which it was observed.
///
/// The same observations in the same order always get the same verdicts.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    resolvers: Vec<IpAddr>,
    connections: Connections,
    /// Scratch space for path matching.
    hits: Vec<usize>,
}

impl Engine {
    /// `settings_resolvers` are accepted beside those of the manifest. To
    /// judge a trail again, give those that its `trail_start` names.
    #[must_use]
    pub fn new(policy: Arc<Policy>, settings_resolvers: &[IpAddr]) -> Self {
        let accepted = settings_resolvers.iter().chain(policy.resolvers());
        let mut resolvers: Vec<_> = accepted.map(IpAddr::to_canonical).collect();
        resolvers.sort_unstable();
        resolvers.dedup();
        Self {
            policy,
            resolvers,
            connections: Connections::default(),
            hits: Vec::new(),
        }
    }

    /// Judges one observation.
    pub fn judge(&mut self, observation: &Observation) -> Judgement {
        match &observation.payload {
            Payload::NetworkEgress(flow) => self.egress(flow),
            Payload::NetworkIngress(flow) => self.ingress(&flow.0),
            Payload::DnsQuery(query) => self.dns(query).unbounded(),
            Payload::FilesystemChange(change) => self.file(change).unbounded(),
            Payload::SyscallActivity(activity) => self.syscalls(activity).unbounded(),
            Payload::CaptureGap(gap) => Judgement {
                verdict: self.unseen(gap),
                limits: Limits::default(),
            },
            _ => Judgement {
                verdict: None,
                limits: Limits::default(),
            },
        }
    }

    fn accepts(&self, resolver: IpAddr) -> bool {
        self.resolvers
            .binary_search(&resolver.to_canonical())
            .is_ok()
    }
}

/// A verdict without limits on its way to a judgement.
trait Unbounded {
    fn unbounded(self) -> Judgement;
}

impl Unbounded for Verdict {
    fn unbounded(self) -> Judgement {
        Judgement {
            verdict: Some(self),
            limits: Limits::default(),
        }
    }
}

fn allow(rule: &str, reason: String) -> Verdict {
    verdict(VerdictResult::Allow, Some(rule), reason)
}

fn anomaly(rule: &str, reason: String) -> Verdict {
    verdict(VerdictResult::Anomaly, Some(rule), reason)
}

fn deny(rule: Option<&str>, reason: String) -> Verdict {
    verdict(VerdictResult::Deny, rule, reason)
}

fn verdict(result: VerdictResult, rule: Option<&str>, reason: String) -> Verdict {
    Verdict {
        policy_rule: rule.map(ToOwned::to_owned),
        reason,
        result,
    }
}

/// Allowed unless there are objections.
fn unless(rule: &str, objections: &[String], reason: impl FnOnce() -> String) -> Verdict {
    if objections.is_empty() {
        allow(rule, reason())
    } else {
        anomaly(rule, objections.join("; "))
    }
}

/// What `defaults:` says of an event for whose type there is no rule.
/// `key` is that of the manifest.
fn fallback(key: &str, value: Fallback, what: &str) -> Verdict {
    let id = format!("default:{key}");
    let reason = format!("the policy has no rule for {what}");
    match value {
        Fallback::Deny => deny(None, reason),
        Fallback::Anomaly => anomaly(&id, reason),
        Fallback::Allow => allow(&id, reason),
    }
}

#[cfg(test)]
mod tests;
