//! What records of one traffic by two captures have in common: all of them, but
//! for the moments at which a capture saw things.

use sandtrace_event::{Count, Flow, FlowPhase, IngressFlow, Payload, WallTime};

/// All records without times, in an order that does not hang on them: those of
/// one conversation one after the other, as they came.
pub(crate) fn alike(payloads: &[Payload]) -> Vec<String> {
    let mut records: Vec<_> = payloads.iter().map(without_times).collect();
    records.sort_by_key(|(conversation, _)| *conversation);
    let (mut flows, mut others): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|(number, _)| number.is_some());
    others.sort();
    flows.append(&mut others);
    flows.into_iter().map(|(_, record)| record).collect()
}

/// Which conversation a record is of, and what it says.
fn without_times(payload: &Payload) -> (Option<u64>, String) {
    match payload {
        Payload::NetworkEgress(flow) | Payload::NetworkIngress(IngressFlow(flow)) => {
            let record = flow_without_times(flow);
            (
                Some(flow.flow_id.0),
                format!("{} {record:?}", payload.event_type()),
            )
        }
        Payload::DnsQuery(query) => {
            let mut query = query.clone();
            query.latency_us = query.latency_us.map(|_| Count(0));
            (None, format!("{query:?}"))
        }
        other => (None, format!("{other:?}")),
    }
}

fn flow_without_times(flow: &Flow) -> Flow {
    let mut flow = flow.clone();
    flow.started_at = WallTime(0);
    flow.duration_us = Count(0);
    for name in &mut flow.names {
        name.observed_at = WallTime(0);
    }
    if flow.phase == FlowPhase::Update {
        // The programs tell of a bound a little later, with the sums of that moment.
        for count in [
            &mut flow.bytes_sent,
            &mut flow.bytes_received,
            &mut flow.packets_sent,
            &mut flow.packets_received,
            &mut flow.wire_bytes_sent,
            &mut flow.wire_bytes_received,
            &mut flow.max_call_bytes,
            &mut flow.resent_bytes,
        ] {
            *count = Count(0);
        }
        (flow.segments_sent, flow.segments_received) = (None, None);
    }
    flow
}
