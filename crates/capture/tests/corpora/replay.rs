//! Every capture is counted to the last byte, with a roomy and a tiny table.

use crate::published::{corpus, files};
use crate::support::{Closed, Frame, frames, run};
use sandtrace_wire::{End, FlowConfig, WireCount};

#[test]
fn every_byte_of_every_capture_is_in_a_flow() {
    let Some(folder) = corpus("every_byte_of_every_capture_is_in_a_flow", ".") else {
        return;
    };
    let mut captures = 0;
    for part in ["zeek/traces", "ja4/pcap", "community-id/pcaps"] {
        for path in files(&folder.join(part)) {
            captures += 1;
            let frames = frames(&path);
            let (closed, _) = check(&frames, FlowConfig::default());
            assert!(closed.iter().all(|flow| flow.end != Some(End::Evicted)));
            check(
                &frames,
                FlowConfig {
                    max_flows: 2,
                    reassembly_bytes_total: 4096,
                    ..FlowConfig::default()
                },
            );
        }
    }
    assert!(captures > 300, "{captures}");
}

#[track_caller]
fn check(frames: &[Frame], config: FlowConfig) -> (Vec<Closed>, WireCount) {
    let expected = frames.iter().fold(WireCount::default(), |sum, frame| {
        let captured = u32::try_from(frame.bytes.len()).unwrap();
        WireCount {
            packets: sum.packets + 1,
            wire_bytes: sum.wire_bytes + u64::from(frame.wire_len.max(captured)),
        }
    });
    let (closed, totals) = run(frames, config);
    let add = |sum: WireCount, it: WireCount| WireCount {
        packets: sum.packets + it.packets,
        wire_bytes: sum.wire_bytes + it.wire_bytes,
    };
    let in_flows = closed
        .iter()
        .filter(|flow| !flow.tunnelled)
        .flat_map(|flow| [flow.sent, flow.received])
        .fold(WireCount::default(), add);
    assert_eq!(add(totals.sent, totals.received), expected);
    assert_eq!(in_flows, expected);
    (closed, expected)
}
