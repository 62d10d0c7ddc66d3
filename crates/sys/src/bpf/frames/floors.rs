//! What each interface has of table and ring, however much the others want.

use super::storm::{frame, open};
use super::tests::in_own_network;
use super::{BpfFrames, BpfFramesConfig};
use crate::tap::Tap;

/// A datagram of each of as many flows.
fn send(tap: &Tap, flows: u16) {
    for number in 0..flows {
        let [high, low] = number.to_be_bytes();
        let mut frame = frame(low);
        // The sandbox's port, below the header's 34 bytes.
        frame[34] = 4 + high;
        rustix::io::write(tap, &frame).unwrap();
    }
}

#[test]
fn a_flood_leaves_the_others_their_part() {
    in_own_network("a_flood_leaves_the_others_their_part", || {
        let config = BpfFramesConfig {
            interfaces: 2,
            flows: 2048,
            flow_share: 2048,
            flow_common: 1024,
            ring: 1 << 20,
            ring_share: 1 << 20,
            ring_common: 1 << 19,
            ..BpfFramesConfig::default()
        };
        let (hub, mut reader) = BpfFrames::load(config).unwrap();
        let taps = [open("st-flood"), open("st-calm")];
        let [flood, calm] = ["st-flood", "st-calm"].map(|tap| hub.attach(tap, None).unwrap());
        // Each flow's first frame is handed over, and nobody reads.
        send(&taps[0], 4000);
        send(&taps[1], 40);
        let mut flows = [0, 0];
        hub.flows(|flow, _| flows[usize::from(flow.owner() == calm.owner())] += 1)
            .unwrap();
        assert_eq!(flows, [1024, 40]);
        assert!(flood.losses().flows > 0 && flood.losses().frames[0] > 0);
        assert_eq!(calm.losses(), Default::default());
        let mut heard = 0;
        reader.read(100_000, |frame| {
            // The host greets the link in its own time.
            heard += usize::from(frame.owner == calm.owner() && !frame.outgoing);
        });
        assert_eq!(heard, 40);
        // What was taken out makes room again.
        let mut ids = Vec::new();
        hub.flows(|flow, _| ids.push(flow)).unwrap();
        for flow in ids.iter().filter(|flow| flow.owner() == flood.owner()) {
            assert!(flood.take(&flow.id).unwrap().is_some());
        }
        send(&taps[0], 1000);
        let mut again = 0;
        hub.flows(|flow, _| again += usize::from(flow.owner() == flood.owner()))
            .unwrap();
        assert!((900..=1000).contains(&again), "{again}");
    });
}
