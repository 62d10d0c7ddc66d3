//! Records per event type and per verdict.

use sandtrace_event::{Count, EventType, VerdictResult};
use std::collections::BTreeMap;

/// How many records of each kind a trail holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    events: BTreeMap<EventType, u64>,
    allow: u64,
    anomaly: u64,
    deny: u64,
}

impl Counts {
    /// Counts one record.
    pub(crate) fn add(&mut self, event_type: EventType, verdict: Option<VerdictResult>) {
        self.add_many(event_type, 1);
        if let Some(result) = verdict {
            *self.slot(result) += 1;
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (&event_type, &count) in &other.events {
            self.add_many(event_type, count);
        }
        self.allow += other.allow;
        self.anomaly += other.anomaly;
        self.deny += other.deny;
    }

    /// Whether a `trail_end` states these counts; what it leaves out is none.
    pub(crate) fn matches(
        &self,
        events: &BTreeMap<String, Count>,
        verdicts: &BTreeMap<String, Count>,
    ) -> bool {
        without_zeros(events.clone()) == self.events()
            && without_zeros(verdicts.clone()) == without_zeros(self.verdicts())
    }

    fn add_many(&mut self, event_type: EventType, count: u64) {
        *self.events.entry(event_type).or_default() += count;
    }

    fn slot(&mut self, result: VerdictResult) -> &mut u64 {
        match result {
            VerdictResult::Allow => &mut self.allow,
            VerdictResult::Anomaly => &mut self.anomaly,
            VerdictResult::Deny => &mut self.deny,
        }
    }

    /// Records of one type.
    #[must_use]
    pub fn of_type(&self, event_type: EventType) -> u64 {
        self.events.get(&event_type).copied().unwrap_or(0)
    }

    /// Records with one verdict.
    #[must_use]
    pub fn of_verdict(&self, result: VerdictResult) -> u64 {
        match result {
            VerdictResult::Allow => self.allow,
            VerdictResult::Anomaly => self.anomaly,
            VerdictResult::Deny => self.deny,
        }
    }

    /// Records per event type as `trail_end` states them; absent types have none.
    #[must_use]
    pub fn events(&self) -> BTreeMap<String, Count> {
        let named = |(event_type, &count): (&EventType, &u64)| {
            (event_type.as_str().to_owned(), Count(count))
        };
        self.events.iter().map(named).collect()
    }

    /// Records per verdict as `trail_end` states them, all three of them.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<String, Count> {
        [
            VerdictResult::Allow,
            VerdictResult::Anomaly,
            VerdictResult::Deny,
        ]
        .map(|result| (result.as_str().to_owned(), Count(self.of_verdict(result))))
        .into()
    }
}

fn without_zeros(mut counts: BTreeMap<String, Count>) -> BTreeMap<String, Count> {
    counts.retain(|_, count| count.0 > 0);
    counts
}
