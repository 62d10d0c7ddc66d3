//! Frames as guests send them that negotiated offloads: 64 KiB at a time, with
//! sums that are not made yet, to be cut into segments by whoever sends them on.

use crate::frames::{datagram, hello, segment};
use crate::tap::Ground;
use sandtrace_wire::FlowConfig;

const PEER: [u8; 4] = [198, 51, 100, 7];
/// `VIRTIO_NET_HDR_GSO_TCPV4` and `VIRTIO_NET_HDR_GSO_UDP`.
const TCP: u8 = 1;
const UDP: u8 = 3;

/// A frame behind the header that says how it is to be cut (linux/virtio_net.h):
/// its sum is to be made from byte 34 on.
fn offloaded(kind: u8, size: u16, frame: &[u8]) -> Vec<u8> {
    const NEEDS_SUM: u8 = 1;
    let sum_at: u16 = if kind == TCP { 16 } else { 6 };
    let headers: u16 = if kind == TCP { 54 } else { 42 };
    let mut header = vec![NEEDS_SUM, kind];
    for number in [headers, size, 34, sum_at] {
        header.extend(number.to_ne_bytes());
    }
    [&header[..], frame].concat()
}

/// A SYN that states the largest segment.
fn syn(ports: (u16, u16), largest: u16) -> Vec<u8> {
    let mut frame = segment(PEER, ports, 999, "S", &[]);
    // Four bytes of options: the total length, and where the data begins.
    frame[17] += 4;
    frame[46] = 0x60;
    frame.extend([2, 4]);
    frame.extend(largest.to_be_bytes());
    frame
}

#[test]
fn large_frames_are_counted_as_frames_and_as_segments() {
    let Some(mut ground) = Ground::new("gso") else {
        return;
    };
    ground.add_offloading_tap("tap1");
    let mut watched = ground.watch_with("tap1", None, &FlowConfig::default());
    let mut payload = hello("large.example", 10);
    payload.resize(64_000, 23);
    for (port, largest) in [(443, 1460), (444, 1000)] {
        let ports = (40_000, port);
        let first = [&[0; 10], &syn(ports, largest)[..]].concat();
        ground.send_into(1, &first);
        // The programs hand over the first, and only count most others.
        for number in 0..20 {
            let seq = 1000 + 64_000 * number;
            let frame = segment(PEER, ports, seq, "PA", &payload);
            ground.send_into(1, &offloaded(TCP, largest, &frame));
        }
        watched.drain();
        watched.tick();
    }
    let seen = watched.finish();
    for (port, each) in [(443, 44), (444, 64)] {
        let flow = seen.to_port(port);
        assert_eq!(flow.packets_sent.0, 21);
        assert_eq!(flow.segments_sent.map(|it| it.0), Some(1 + 20 * each));
        assert_eq!(flow.bytes_sent.0, 20 * 64_000);
        assert_eq!(flow.dst_host, "large.example");
        // A sum that is not made yet is no fault.
        assert_eq!(flow.findings, ["sni_not_in_dns"]);
    }
}

/// A guest writes the header itself. Of a frame whose kind of offload has no
/// number for packet sockets, those that ask for such headers get nothing.
#[test]
fn an_offload_that_nobody_knows_hides_nothing() {
    let Some(mut ground) = Ground::new("ufo") else {
        return;
    };
    ground.add_offloading_tap("tap1");
    let watched = ground.watch_with("tap1", None, &FlowConfig::default());
    let frame = datagram(PEER, (1, 1001), &[7; 8000]);
    ground.send_into(1, &offloaded(UDP, 1472, &frame));
    let seen = watched.finish();
    let flow = seen.to_port(1001);
    assert_eq!((flow.packets_sent.0, flow.bytes_sent.0), (1, 8000));
    assert_eq!(flow.segments_sent, None);
}
