//! Flows that are taken out of the table while frames come.

use super::tests::in_own_network;
use super::{BpfFlow, BpfFrame, BpfFrames, BpfFramesConfig, BpfFramesReader, BpfTap};
use crate::tap::Tap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A tap that is up.
pub(super) fn open(name: &str) -> Tap {
    let tap = Tap::open(name).unwrap();
    let up = ["link", "set", name, "up"];
    assert!(Command::new("ip").args(up).status().unwrap().success());
    tap
}

/// A datagram over IPv4 from one of 256 ports.
pub(super) fn frame(port: u8) -> Vec<u8> {
    let ethernet = [&[2; 12][..], &[8, 0]].concat();
    let ip = [
        0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 198, 51, 100, 7,
    ];
    let udp = [4, port, 4, 1, 0, 12, 0, 0, 1, 2, 3, 4];
    [&ethernet[..], &ip, &udp].concat()
}

/// Frames of the guest that were handed over.
fn read(reader: &mut BpfFramesReader) -> u64 {
    const MOST: usize = 4096;
    let mut frames = 0;
    let mut count = |frame: &BpfFrame<'_>| {
        if !frame.outgoing {
            frames += 1;
        }
    };
    while reader.read(MOST, &mut count) == MOST {}
    frames
}

/// Takes out what was asked some time ago, and asks all. Answers how many left, and
/// the frames that were counted in them.
fn sweep(hub: &BpfFrames, tap: &BpfTap) -> (u64, u64) {
    let mut ids = Vec::new();
    hub.flows(|flow, _| ids.push(flow.id)).unwrap();
    let (mut left, mut frames) = (0, 0);
    for ids in ids.chunks(BpfTap::MOST_RELEASED) {
        tap.ask(ids).unwrap();
    }
    std::thread::sleep(Duration::from_millis(2));
    for ids in ids.chunks(BpfTap::MOST_RELEASED) {
        let count = |_: &_, taken: Option<(BpfFlow, u32)>| {
            if let Some((flow, _)) = taken {
                left += 1;
                frames += flow.sums[0].frames;
            }
        };
        tap.release(ids, count).unwrap();
    }
    (left, frames)
}

/// Frames of one flow in a row.
const IN_ROW: usize = 32;

fn storm() {
    let tap = open("st-storm");
    let (hub, mut reader) = BpfFrames::load(BpfFramesConfig::default()).unwrap();
    let watch = hub.attach("st-storm", None).unwrap();
    let over = AtomicBool::new(false);
    let (sent, counted, left) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // So many in a row that a flow is silent for some milliseconds after them,
            // however fast the machine is.
            let in_row = |port| std::iter::repeat_n(frame(port), IN_ROW);
            let frames: Vec<_> = (0..=255).flat_map(in_row).collect();
            let mut sent = 0_u64;
            for frame in frames.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    return sent;
                }
                rustix::io::write(&tap, frame).unwrap();
                sent += 1;
            }
            sent
        });
        let until = Instant::now() + Duration::from_secs(3);
        let (mut counted, mut left) = (0, 0);
        while Instant::now() < until {
            let swept = sweep(&hub, &watch);
            left += swept.0;
            counted += swept.1 + read(&mut reader);
        }
        over.store(true, Ordering::Relaxed);
        (sender.join().unwrap(), counted, left)
    });
    watch.close();
    let mut counted = counted + read(&mut reader);
    hub.flows(|flow, _| counted += flow.sums[0].frames).unwrap();
    let lost = watch.losses().frames[0];
    assert!(left > 100, "{left}");
    assert_eq!(counted + lost, sent, "{left} flows left");
}

#[test]
fn no_frame_is_lost_of_a_flow_that_is_taken_out_while_frames_come() {
    let test = "no_frame_is_lost_of_a_flow_that_is_taken_out_while_frames_come";
    in_own_network(test, storm);
}
