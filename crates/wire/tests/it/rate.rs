//! How long one packet takes. Run with `--release -- --ignored --nocapture rate`.

use etherparse::PacketBuilder;
use sandtrace_wire::{
    Bounds, Direction, DnsTransaction, FlowConfig, FlowSink, FlowTable, FlowView, Moment, Packet,
    Phase,
};
use std::time::Instant;

struct Nobody;

impl FlowSink for Nobody {
    fn flow(&mut self, _phase: Phase, _at: Moment, _flow: &FlowView<'_>) -> Bounds {
        Bounds {
            max_bytes_per_call: Some(1 << 40),
            max_bytes_total: Some(1 << 40),
        }
    }

    fn dns(&mut self, _at: Moment, _query: &DnsTransaction) {}
}

const PACKETS: u64 = 4_000_000;

/// A frame of 64 bytes of each flow, with 10 bytes of payload.
fn frames(flows: u16, tcp: bool) -> Vec<Vec<u8>> {
    (0..flows)
        .map(|flow| {
            let builder =
                PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 2], [192, 0, 2, 1], 64);
            let mut frame = Vec::new();
            if tcp {
                let builder = builder.tcp(10_000 + flow, 443, 1, 65_535).ack(1).psh();
                builder.write(&mut frame, &[0; 10]).unwrap();
            } else {
                let builder = builder.udp(10_000 + flow, 443);
                builder.write(&mut frame, &[0; 22]).unwrap();
            }
            frame
        })
        .collect()
}

#[track_caller]
fn measure(flows: u16, tcp: bool) -> f64 {
    let mut frames = frames(flows, tcp);
    let mut table = FlowTable::new(FlowConfig::default());
    let mut at = Moment::default();
    let started = Instant::now();
    for number in 0..PACKETS {
        let slot = usize::try_from(number % u64::from(flows)).unwrap();
        let frame = &mut frames[slot];
        if tcp {
            // Each segment follows the last one.
            let seq = u32::from_be_bytes(frame[38..42].try_into().unwrap());
            frame[38..42].copy_from_slice(&seq.wrapping_add(10).to_be_bytes());
        }
        at.mono_us += 1;
        let packet = Packet {
            at,
            direction: Direction::FromSandbox,
            bytes: frame,
            wire_len: 64,
            vlan: None,
        };
        table.packet(&packet, &mut Nobody);
        if number % 64 == 0 {
            table.tick(at, &mut Nobody);
        }
    }
    let nanoseconds = started.elapsed().as_secs_f64() * 1e9;
    assert_eq!(table.totals().sent.packets, PACKETS);
    assert_eq!(table.totals().flows, u64::from(flows));
    nanoseconds / 4e6
}

#[test]
#[ignore = "a measurement, meaningful in release only"]
fn nanoseconds_per_packet() {
    for (flows, tcp) in [(1, true), (1_000, true), (50_000, true), (1_000, false)] {
        let protocol = if tcp { "TCP" } else { "UDP" };
        let best = (0..3).map(|_| measure(flows, tcp)).fold(f64::MAX, f64::min);
        println!("{flows:>6} {protocol} flows: {best:.0} ns per packet");
    }
}
