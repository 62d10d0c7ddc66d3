//! Bounds on calls, conversations and connections.

use crate::testing::*;
use sandtrace_event::{Count, Flow, FlowPhase, IngressFlow, Limits};

fn calls(max_call: u64, bytes: u64, sent: u64) -> Flow {
    let mut flow = https("api.stripe.com");
    flow.max_call = Count(max_call);
    flow.calls = Count(max_call);
    flow.max_call_bytes = Count(bytes);
    flow.bytes_sent = Count(sent);
    flow
}

#[test]
fn a_call_over_the_bound_is_an_anomaly() {
    let mut engine = engine(SEED);
    let judgement = engine.judge(&observed(calls(1, 4096, 4700)));
    assert_eq!(
        judgement.limits,
        Limits {
            max_bytes_per_call: Some(4096),
            max_bytes_total: None
        }
    );
    assert_eq!(
        judgement.verdict.unwrap().reason,
        "api.stripe.com:443, named by the client and by DNS"
    );
    assert_eq!(
        judged(&mut engine, calls(2, 5012, 6000)),
        "anomaly tool:stripe_charge: payload 5,012 B exceeds 4,096 B for api.stripe.com:443, call 2 of this connection"
    );
    // What is denied has no bounds to watch.
    assert_eq!(
        engine.judge(&observed(https("evil.example"))).limits,
        Limits::default()
    );
}

#[test]
fn what_the_capture_missed_counts() {
    let mut flow = calls(1, 4000, 4000);
    flow.missed_bytes_received = Count(1 << 20);
    assert_eq!(
        judged(&mut engine(SEED), flow.clone()),
        judged(&mut engine(SEED), calls(1, 4000, 4000)),
        "a gap in a download says nothing of what was sent"
    );
    flow.missed_bytes_sent = Count(97);
    assert_eq!(
        judged(&mut engine(SEED), flow),
        "anomaly tool:stripe_charge: payload 4,000 B may exceed 4,096 B for api.stripe.com:443, \
         call 1 of this connection: the capture missed 97 B"
    );
}

#[test]
fn totals_are_bounded_both_ways() {
    let mut engine = engine(
        "rules:\n- {id: out, type: network_egress, destinations: [{host: api.stripe.com}], max_bytes_total: 1000}\n\
         - {id: in, type: network_ingress, sources: [{cidr: 0.0.0.0/0}], max_bytes_total: 1000}\n",
    );
    assert_eq!(
        judged(&mut engine, calls(1, 10, 1001)),
        "anomaly out: payload 1,001 B exceeds 1,000 B for api.stripe.com:443 in all"
    );
    let IngressFlow(mut flow) = ingress("192.0.2.1", 22);
    flow.bytes_sent = Count(2000);
    assert_eq!(
        judged(&mut engine, IngressFlow(flow)),
        "anomaly in: payload 2,000 B exceeds 1,000 B for 192.0.2.1 to port 22 in all"
    );
}

#[test]
fn connections_at_the_same_time_are_bounded() {
    let mut engine = engine(
        "rules: [{id: one, type: network_egress, destinations: [{host: api.stripe.com}], max_connections: 1}]",
    );
    let mut judge = |flow_id: u64, phase| {
        let mut flow = https("api.stripe.com");
        flow.flow_id = Count(flow_id);
        flow.phase = phase;
        judged(&mut engine, flow)
    };
    let within = "allow one: api.stripe.com:443, named by the client and by DNS";
    let over = "anomaly one: more than 1 connections at the same time to api.stripe.com:443";
    assert_eq!(judge(1, FlowPhase::Open), within);
    assert_eq!(judge(2, FlowPhase::Open), over);
    assert_eq!(judge(1, FlowPhase::Close), within);
    assert_eq!(judge(2, FlowPhase::Close), over);
    assert_eq!(judge(3, FlowPhase::Open), within);
}
