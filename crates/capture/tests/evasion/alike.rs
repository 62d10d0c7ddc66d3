//! What records of one traffic by two captures have in common.

use sandtrace_event::{Count, Flow, FlowPhase, IngressFlow, Payload, WallTime};

/// The records at the end of conversations and questions, without the times at
/// which a capture saw things, in an order that does not hang on them.
pub(crate) fn alike(payloads: &[Payload]) -> Vec<String> {
    let mut records: Vec<_> = payloads.iter().filter_map(without_times).collect();
    records.sort_unstable();
    records
}

fn without_times(payload: &Payload) -> Option<String> {
    match payload {
        Payload::NetworkEgress(flow) => flow_without_times(flow),
        Payload::NetworkIngress(IngressFlow(flow)) => flow_without_times(flow),
        Payload::DnsQuery(query) => {
            let mut query = query.clone();
            query.latency_us = query.latency_us.map(|_| Count(0));
            Some(format!("{query:?}"))
        }
        other => Some(format!("{other:?}")),
    }
}

fn flow_without_times(flow: &Flow) -> Option<String> {
    let mut flow = flow.clone();
    flow.started_at = WallTime(0);
    flow.duration_us = Count(0);
    for name in &mut flow.names {
        name.observed_at = WallTime(0);
    }
    (flow.phase == FlowPhase::Close).then(|| format!("{flow:?}"))
}
