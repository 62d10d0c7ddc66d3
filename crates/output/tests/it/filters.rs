//! Which events a filter admits.

use crate::events::{denied, end};
use sandtrace_event::{EventType, EvidenceTier, VerdictResult};
use sandtrace_output::Filter;

#[track_caller]
fn check(filter: &Filter, denied_passes: bool, end_passes: bool) {
    assert_eq!(filter.admits(&denied()), denied_passes, "{filter:?}");
    assert_eq!(filter.admits(&end()), end_passes, "{filter:?}");
}

#[test]
fn empty_lists_admit_everything() {
    check(&Filter::default(), true, true);
}

#[test]
fn each_list_narrows() {
    let types = vec![EventType::TrailEnd, EventType::DnsQuery];
    let by_type = Filter {
        types,
        ..Filter::default()
    };
    check(&by_type, false, true);
    let by_tier = Filter {
        tiers: vec![EvidenceTier::Kernel],
        ..Filter::default()
    };
    check(&by_tier, false, false);
}

#[test]
fn control_records_have_no_verdict_to_pass_by() {
    let by_verdict = |verdicts| Filter {
        verdicts,
        ..Filter::default()
    };
    check(
        &by_verdict(vec![VerdictResult::Deny, VerdictResult::Anomaly]),
        true,
        false,
    );
    check(&by_verdict(vec![VerdictResult::Allow]), false, false);
}
