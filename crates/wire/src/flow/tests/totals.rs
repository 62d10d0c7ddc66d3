//! Every frame is counted in exactly one flow, whatever it is.

use crate::testing::lab::Lab;
use crate::testing::talk::{SANDBOX, SERVER, Talk};
use crate::{Direction, FlowConfig, Packet, Protocol, Traffic, WireCount};
use etherparse::{PacketBuilder, VlanId};
use proptest::prelude::*;

#[track_caller]
pub(super) fn check_sums(lab: &mut Lab) {
    let closed = lab.finish();
    let totals = lab.table.totals();
    let folded: u64 = closed
        .iter()
        .filter_map(|report| Some(report.aggregate.as_ref()?.flows))
        .sum();
    assert_eq!(closed.len() as u64 + folded, totals.flows);
    let sum = |side: fn(&crate::testing::lab::Report) -> Traffic| {
        closed
            .iter()
            .filter(|report| report.tunnel.is_none())
            .map(side)
            .fold(WireCount::default(), |sum, it| WireCount {
                packets: sum.packets + it.packets,
                wire_bytes: sum.wire_bytes + it.wire_bytes,
            })
    };
    assert_eq!(sum(|report| report.sent), totals.sent);
    assert_eq!(sum(|report| report.received), totals.received);
}

/// One frame from the sandbox; its class, payload and findings.
#[track_caller]
fn check(frame: &[u8], wire_len: u32, protocol: Protocol, payload: u64, findings: &[&str]) {
    let mut lab = Lab::new(FlowConfig::default());
    let packet = Packet {
        at: lab.now(),
        direction: Direction::FromSandbox,
        bytes: frame,
        wire_len,
        vlan: None,
    };
    lab.table.packet(&packet, &mut lab.sink);
    let report = lab.finish()[0].clone();
    assert_eq!(report.protocol, protocol);
    assert_eq!(report.sent.payload_bytes, payload);
    assert_eq!(report.sent.wire_bytes, u64::from(wire_len));
    assert_eq!(report.findings, findings);
    check_sums(&mut lab);
}

fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(SANDBOX, SERVER, 64)
        .tcp(1, 2, 3, 4)
        .write(&mut frame, &vec![0; payload])
        .unwrap();
    frame
}

#[test]
fn lengths_come_from_headers() {
    let frame = tcp_frame(60_000);
    check(&frame[..128], 60_054, Protocol::Tcp, 60_000, &[]);
    check(
        &frame[..40],
        60_054,
        Protocol::Tcp,
        60_000 + 20,
        &["truncated_header"],
    );
    // Padding of a short frame.
    let mut frame = tcp_frame(1);
    frame.resize(60, 0xff);
    check(&frame, 60, Protocol::Tcp, 1, &[]);
    // Bytes behind the datagram.
    frame.resize(200, 0xff);
    check(&frame, 200, Protocol::Tcp, 1, &["trailing_bytes"]);
    // The longest that padding makes, with a check sequence.
    let mut frame = tcp_frame(0);
    frame.resize(64, 0xff);
    check(&frame, 64, Protocol::Tcp, 0, &[]);
    frame.push(0xff);
    check(&frame, 65, Protocol::Tcp, 0, &["trailing_bytes"]);
    // The same behind what a PPPoE session says that there is.
    let session = [0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21];
    let frame = [&[2; 12][..], &session, &tcp_frame(0)[14..], &[0xff; 100]].concat();
    check(&frame, 162, Protocol::Tcp, 0, &["trailing_bytes"]);
    // A length that an offload engine is to fill in.
    let mut frame = tcp_frame(100);
    frame[16..18].fill(0);
    check(&frame, 70_054, Protocol::Tcp, 70_000, &[]);
    // A length that is a lie.
    frame[16..18].fill(0xff);
    check(&frame, 154, Protocol::Tcp, 100, &["truncated_header"]);
}

#[test]
fn bytes_in_headers_are_told() {
    // An authentication header of 1,020 bytes in front of TCP.
    let mut authentication = vec![0xee; 1020];
    authentication[..2].copy_from_slice(&[6, 253]);
    let mut frame = tcp_frame(0);
    frame.splice(34..34, authentication);
    frame[16..18].copy_from_slice(&1060_u16.to_be_bytes());
    frame[23] = 51;
    for (frames, findings) in [(4, &[][..]), (5, &["large_headers"])] {
        let mut lab = Lab::new(FlowConfig::default());
        for _ in 0..frames {
            lab.play(&(Direction::FromSandbox, frame.clone()));
        }
        let report = lab.finish()[0].clone();
        assert_eq!(
            (report.protocol, report.sent.payload_bytes),
            (Protocol::Tcp, 0)
        );
        assert_eq!(report.findings, findings);
    }
}

#[test]
fn what_is_not_ip_has_a_class() {
    check(&[], 0, Protocol::Ethernet(0), 0, &["truncated_header"]);
    check(
        &[0; 13],
        13,
        Protocol::Ethernet(0),
        13,
        &["truncated_header"],
    );
    let frame = |kind: u16| [&[2; 12][..], &kind.to_be_bytes(), &[0; 46]].concat();
    check(&frame(0x0806), 60, Protocol::Arp, 46, &[]);
    check(&frame(0x88cc), 60, Protocol::Ethernet(0x88cc), 46, &[]);
    check(&frame(46), 60, Protocol::Ethernet(0), 46, &[]);
    check(
        &frame(0x0800),
        60,
        Protocol::Ethernet(0x0800),
        46,
        &["truncated_header"],
    );
}

#[test]
fn tags_inside_the_frame_are_followed() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .double_vlan(VlanId::try_new(100).unwrap(), VlanId::try_new(200).unwrap())
        .ipv4(SANDBOX, SERVER, 64)
        .udp(1, 2)
        .write(&mut frame, &[0; 10])
        .unwrap();
    check(&frame, frame.len() as u32, Protocol::Udp, 10, &[]);
    let mut lab = Lab::new(FlowConfig::default());
    lab.play(&(Direction::FromSandbox, frame));
    assert_eq!(lab.finish()[0].vlan, Some(100));
}

#[test]
fn fragments_that_are_not_joined_are_a_flow_of_their_own() {
    let mut frame = tcp_frame(40);
    frame[20..22].copy_from_slice(&0x2000_u16.to_be_bytes());
    check(&frame, 94, Protocol::Tcp, 60, &["fragmented"]);
    frame[20..22].copy_from_slice(&0x0002_u16.to_be_bytes());
    check(&frame, 94, Protocol::Tcp, 60, &["fragmented"]);
}

#[test]
fn extension_headers_are_followed() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6([1; 16], [2; 16], 64)
        .udp(1, 2)
        .write(&mut frame, &[0; 30])
        .unwrap();
    // A hop-by-hop header of 8 bytes before the UDP header.
    frame.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    frame[20] = 0;
    frame[19] += 8;
    check(&frame, frame.len() as u32, Protocol::Udp, 30, &[]);
    check(
        &frame[..58],
        frame.len() as u32,
        Protocol::Ip(0),
        46,
        &["truncated_header"],
    );
}

#[test]
fn a_routing_header_cut_short_is_told() {
    // A fuzz target found that a reader went beyond such a frame.
    let mut frame = [
        &[0xff; 6][..],
        &[0; 6],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0x24],
    ]
    .concat();
    frame.extend([43, 64]);
    frame.extend([0x20; 32]);
    frame.extend([0, 0x75, 0x30, 0x32, 0xc8, 0, 0x0c, 0xde, 0x49, 0x58]);
    check(
        &frame,
        frame.len() as u32,
        Protocol::Ip(43),
        10,
        &["truncated_header"],
    );
}

#[test]
fn reassembly_memory_is_bounded_over_all_flows() {
    let mut lab = Lab::new(FlowConfig {
        reassembly_bytes_total: 100_000,
        ..FlowConfig::default()
    });
    for port in 1..200 {
        // A hello that never ends.
        let hello = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; 1400]].concat();
        lab.play_all(&Talk::open(port, 443).client(&hello).frames);
    }
    let closed = lab.finish();
    let limited = closed
        .iter()
        .filter(|flow| flow.findings.contains(&"reassembly_limit"))
        .count();
    assert!((100..199).contains(&limited), "{limited}");
    assert!(
        closed
            .iter()
            .all(|flow| { flow.handshake_bytes + flow.max_call_bytes == flow.sent.payload_bytes })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_frames_are_counted(
        frames in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..120), 0_u32..2000, 0_u64..70_000_000),
            0..60,
        ),
        max_flows in 1_usize..8,
    ) {
        let mut lab = Lab::new(FlowConfig { max_flows, ..FlowConfig::default() });
        let kinds: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0], &[8, 6]];
        for (number, (out, mut bytes, more, wait)) in frames.into_iter().enumerate() {
            if number % 5 != 0 && bytes.len() > 15 {
                let kind = kinds[number % 4];
                bytes[12..12 + kind.len()].copy_from_slice(kind);
            }
            let direction = if out { Direction::FromSandbox } else { Direction::ToSandbox };
            let packet = Packet {
                at: lab.now(),
                direction,
                bytes: &bytes,
                wire_len: more,
                vlan: None,
            };
            lab.table.packet(&packet, &mut lab.sink);
            lab.wait(wait);
        }
        check_sums(&mut lab);
    }

    /// Real frames with a few bytes changed, cut anywhere.
    #[test]
    fn damaged_connections_are_counted(
        damage in proptest::collection::vec((any::<u16>(), 12_usize..120, any::<u8>()), 0..30),
        snap in 20_usize..200,
    ) {
        let hello = crate::testing::tls::hello_records("x.example", 300, 100);
        let mut talk = Talk::open(40_000, 443)
            .client_in(90, &hello)
            .server(&crate::testing::tls::server_hello_record(0x1301, true))
            .client(&[23; 300])
            .fin();
        for (frame, at, value) in damage {
            let count = talk.frames.len();
            let bytes = &mut talk.frames[usize::from(frame) % count].1;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let mut lab = Lab::new(FlowConfig::default());
        for (direction, bytes) in &talk.frames {
            lab.play_cut(*direction, bytes, snap);
        }
        check_sums(&mut lab);
        for flow in lab.closed() {
            prop_assert!(flow.handshake_bytes <= flow.sent.payload_bytes + flow.received.payload_bytes);
        }
    }
}
