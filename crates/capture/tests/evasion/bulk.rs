//! Traffic of which eBPF programs only count most.

use crate::frames::{datagram, dns, segment};
use crate::tap::{Ground, RESOLVER};
use sandtrace_event::{FlowPhase, Limits, Payload};
use sandtrace_wire::FlowConfig;
use std::time::{Duration, Instant};

const PEER: [u8; 4] = [192, 0, 2, 7];

#[test]
fn a_long_upload_has_the_same_calls_however_it_is_counted() {
    let Some(ground) = Ground::new("upload") else {
        return;
    };
    let mut watched = ground.watch();
    let ports = (40_000, 8080);
    ground.send(&segment(PEER, ports, 1000, "S", &[]));
    let payload = vec![7; 1400];
    let mut seq = 1001;
    for call in 0..3 {
        for part in 0..400 {
            ground.send(&segment(PEER, ports, seq, "PA", &payload));
            seq += 1400;
            if part % 100 == 99 {
                watched.read();
            }
            // Sent again, and a hole: neither is bulk.
            if part == 200 {
                ground.send(&segment(PEER, ports, seq - 2800, "PA", &payload));
                seq += 10 * call;
            }
        }
        watched.tick();
    }
    ground.send(&segment(PEER, ports, seq, "FA", &[]));
    let seen = watched.finish();
    let flow = seen.to_port(8080);
    assert_eq!(flow.packets_sent.0, 2 + 3 * 401);
    assert_eq!(flow.bytes_sent.0, 3 * 400 * 1400);
    assert_eq!(flow.resent_bytes.0, 3 * 1400);
}

#[test]
fn datagrams_of_one_flow_are_counted_beside_what_is_read() {
    let Some(ground) = Ground::new("datagrams") else {
        return;
    };
    let config = FlowConfig {
        call_pause_us: Some(200_000),
        ..FlowConfig::default()
    };
    let mut watched = ground.watch_with("tap0", None, &config);
    for round in 0..4_u8 {
        for size in 0..300 {
            ground.send(&datagram(PEER, (5000, 5001), &vec![round; size]));
            // A question in the middle of it, and a frame of a third kind.
            if size == 150 {
                let question = dns(9, "a.example", None);
                ground.send(&datagram(
                    RESOLVER,
                    (6000 + u16::from(round), 53),
                    &question,
                ));
            }
        }
        watched.drain();
        watched.tick();
        std::thread::sleep(Duration::from_millis(300));
    }
    let seen = watched.finish();
    let flow = seen.to_port(5001);
    assert_eq!(flow.packets_sent.0, 1200);
    assert_eq!(flow.bytes_sent.0, 4 * (299 * 300) / 2);
    assert_eq!(flow.calls.0, 4);
}

#[test]
fn questions_behind_other_datagrams_are_read_on_any_port() {
    let Some(ground) = Ground::new("behind") else {
        return;
    };
    let watched = ground.watch();
    // Recursion desired, and not.
    for (port, flags) in [(5300, 1), (5301, 0)] {
        let mut question = dns(9, "a.example", None);
        question[2] = flags;
        let other = vec![9; 100];
        for payload in [&other, &other, &other, &question, &other, &question] {
            ground.send(&datagram(PEER, (5000, port), payload));
        }
    }
    let seen = watched.finish();
    assert_eq!(seen.questions().len(), 2);
    for port in [5300, 5301] {
        let findings = &seen.to_port(port).findings;
        assert_eq!(findings, &["dns_malformed", "dns_odd_port"]);
    }
}

#[test]
fn each_call_over_its_bound_is_told_however_it_is_counted() {
    let Some(ground) = Ground::new("bounds") else {
        return;
    };
    let config = FlowConfig {
        call_pause_us: Some(200_000),
        ..FlowConfig::default()
    };
    let mut watched = ground.watch_with("tap0", None, &config);
    watched.bound_by(Limits {
        max_bytes_per_call: Some(300_000),
        max_bytes_total: None,
    });
    for calls in [700, 100, 700_u16] {
        for _ in 0..calls {
            ground.send(&datagram(PEER, (5000, 5001), &[7; 1000]));
        }
        watched.drain();
        watched.tick();
        std::thread::sleep(Duration::from_millis(300));
    }
    let seen = watched.finish();
    let phases = seen.payloads().iter().filter_map(|payload| match payload {
        Payload::NetworkEgress(flow) => Some(flow.phase),
        _ => None,
    });
    use FlowPhase::{Close, Open, Update};
    assert_eq!(phases.collect::<Vec<_>>(), [Open, Update, Update, Close]);
    assert_eq!(seen.to_port(5001).calls.0, 3);
}

/// Where the kernel's table is nearly full a flow leaves it after a second or two of
/// silence, and is put there again by its next frame.
#[test]
fn flows_that_leave_the_kernels_table_and_come_back_are_counted_whole() {
    const FLOWS: u16 = 56;
    let Some(ground) = Ground::new("leave") else {
        return;
    };
    let mut watched = ground.watch_with(
        "tap0",
        None,
        &FlowConfig {
            max_flows: 64,
            ..FlowConfig::default()
        },
    );
    let begun = Instant::now();
    let mut sent = [0_u64; FLOWS as usize];
    let mut due = [Duration::ZERO; FLOWS as usize];
    while begun.elapsed() < Duration::from_secs(12) {
        for flow in 0..FLOWS {
            let at = usize::from(flow);
            if due[at] > begun.elapsed() {
                continue;
            }
            // Silences of 1.2 to 4 s: some end before the flow leaves, some after.
            due[at] = begun.elapsed() + Duration::from_millis(1200 + u64::from(flow) * 50);
            for _ in 0..5 {
                ground.send(&datagram(PEER, (7, 1000 + flow), &[0; 100]));
                sent[at] += 1;
            }
        }
        watched.read();
        watched.tick();
        std::thread::sleep(Duration::from_millis(1));
    }
    let seen = watched.finish();
    let counted: Vec<_> = (0..FLOWS)
        .map(|flow| seen.to_port(1000 + flow).packets_sent.0)
        .collect();
    assert_eq!(counted, sent);
}
