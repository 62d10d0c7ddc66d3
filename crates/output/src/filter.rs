//! Which events are shown.

use sandtrace_event::{AuditEvent, EventType, EvidenceTier, VerdictResult};

/// Picks events by what they are. An empty list admits everything; an event
/// must pass all three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Event types to admit.
    pub types: Vec<EventType>,
    /// Evidence tiers to admit.
    pub tiers: Vec<EvidenceTier>,
    /// Verdicts to admit. Events without a verdict (control records) pass
    /// only where this list is empty.
    pub verdicts: Vec<VerdictResult>,
}

impl Filter {
    /// Whether `event` is to be shown.
    #[must_use]
    pub fn admits(&self, event: &AuditEvent) -> bool {
        let verdict = event.verdict.as_ref().map(|verdict| verdict.result);
        admits(&self.types, Some(event.event_type))
            && admits(&self.tiers, Some(event.evidence_tier))
            && admits(&self.verdicts, verdict)
    }
}

fn admits<T: PartialEq>(wanted: &[T], actual: Option<T>) -> bool {
    wanted.is_empty() || actual.is_some_and(|actual| wanted.contains(&actual))
}
