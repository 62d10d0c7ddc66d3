//! What a whole watch came to.

use super::{Charset, Text, size};
use sandtrace_event::{Count, Reconciliation, TrailEnd};
use std::collections::BTreeMap;

/// A few lines, without a final line end, on what a trail holds: records by
/// type, verdicts, and per interface whether every frame is accounted for.
#[must_use]
pub fn summary(end: &TrailEnd) -> String {
    let mut lines = vec![
        format!("records   {}", listed(&end.events)),
        format!("verdicts  {}", listed(&end.verdicts)),
    ];
    lines.extend(end.reconciliation.iter().map(interface));
    lines.join("\n")
}

/// The same on one line, without interfaces.
pub(super) fn totals(end: &TrailEnd) -> String {
    let records = total(&end.events);
    if end.verdicts.is_empty() {
        format!("{records} records")
    } else {
        format!("{records} records: {}", counts(&end.verdicts))
    }
}

fn listed(by_name: &BTreeMap<String, Count>) -> String {
    if by_name.is_empty() {
        return "none".to_owned();
    }
    format!("{} ({})", total(by_name), counts(by_name))
}

fn counts(by_name: &BTreeMap<String, Count>) -> String {
    let count = |(name, count): (&String, &Count)| format!("{count} {}", safe(name));
    // A trail has few names; one that was tampered with may have any number.
    let counts: Vec<_> = by_name.iter().take(32).map(count).collect();
    counts.join(", ")
}

fn total(by_name: &BTreeMap<String, Count>) -> u64 {
    let counts = by_name.values().map(|count| count.0);
    counts.fold(0, u64::saturating_add)
}

fn interface(it: &Reconciliation) -> String {
    let name = safe(&it.interface);
    let sum = |sent: Count, received: Count| sent.0.saturating_add(received.0);
    let frames = sum(it.interface_packets_sent, it.interface_packets_received);
    let bytes = size(sum(it.interface_bytes_sent, it.interface_bytes_received));
    let seen = sum(it.flow_packets_sent, it.flow_packets_received);
    let seen_bytes = size(sum(it.flow_bytes_sent, it.flow_bytes_received));
    let dropped = it.ring_drops;
    if it.matches {
        return format!("{name}  {frames} frames, {bytes}: all in the trail, {dropped} dropped");
    }
    format!(
        "{name}  interface counted {frames} frames, {bytes}; \
         the trail has {seen} frames, {seen_bytes}; {dropped} dropped by the kernel"
    )
}

fn safe(text: &str) -> String {
    Text::new(text.as_bytes(), Charset::Ascii).start(40)
}
