//! Tricks with frames: their addresses, tags, sizes, headers and number.

use crate::frames::{HOST_MAC, datagram, fragments, hello, segment, tagged};
use crate::tap::{Ground, OTHER_RESOLVER};
use sandtrace_capture::network::{PcapNgWriter, Search};
use sandtrace_event::{CaptureGap, GapCause, Payload, Protocol};
use sandtrace_wire::{FlowConfig, Numbering};
use std::time::Duration;

const PEER: [u8; 4] = [198, 51, 100, 7];

#[test]
fn another_source_address_or_mac_is_a_finding() {
    let Some(ground) = Ground::new("spoof") else {
        return;
    };
    let watched = ground.watch();
    ground.send(&datagram(PEER, (1, 1001), b"honest"));
    let mut ip = datagram(PEER, (1, 1002), b"from whom?");
    ip[26..30].copy_from_slice(&[10, 9, 0, 99]);
    ground.send(&ip);
    let mut mac = datagram(PEER, (1, 1003), b"from which card?");
    mac[6..12].copy_from_slice(&[2, 6, 6, 6, 6, 6]);
    ground.send(&mac);
    let seen = watched.finish();
    assert!(seen.to_port(1001).findings.is_empty());
    assert_eq!(seen.to_port(1002).findings, ["spoofed_source"]);
    assert_eq!(seen.to_port(1003).findings, ["spoofed_mac"]);
}

/// A neighbour on a bridge can take what is addressed to anybody, and answer as them.
#[test]
fn another_neighbour_for_public_addresses_is_a_finding() {
    let Some(ground) = Ground::new("hop") else {
        return;
    };
    let watched = ground.watch();
    let by = |mac: [u8; 6], mut frame: Vec<u8>| {
        frame[..6].copy_from_slice(&mac);
        ground.send(&frame);
    };
    let (neighbour, everybody) = ([2, 6, 6, 6, 6, 6], [0xff; 6]);
    // What is near is everybody's own.
    by(neighbour, datagram([10, 9, 0, 7], (1, 1000), b"near"));
    ground.send(&datagram(PEER, (1, 1001), b"by the router"));
    by(neighbour, datagram(PEER, (1, 1002), b"by another"));
    by(everybody, datagram(PEER, (1, 1003), b"by whoever hears it"));
    // Amid a flow of which most frames are only counted.
    for number in 0..20_u8 {
        let mac = if number == 15 { neighbour } else { HOST_MAC };
        by(mac, datagram(PEER, (1, 1004), &[number; 100]));
    }
    // Fragments have the ports of their datagram.
    for frame in fragments(&datagram(PEER, (1, 1005), &[7; 3000]), 1480, 9) {
        by(neighbour, frame);
    }
    let seen = watched.finish();
    assert!(seen.to_port(1001).findings.is_empty());
    for port in [1002, 1003, 1004, 1005] {
        assert_eq!(seen.to_port(port).findings, ["next_hop_changed"], "{port}");
    }
    assert_eq!(seen.to_port(1000).findings, ["private_address"]);
}

#[test]
fn what_is_neither_tcp_nor_udp_leaves_with_its_bytes_on_record() {
    let Some(ground) = Ground::new("others") else {
        return;
    };
    let watched = ground.watch();
    // ICMP, IGMP, GRE, ESP, AH, OSPF, SCTP and a number that nobody has.
    let protocols = [1, 2, 47, 50, 51, 89, 132, 253];
    for protocol in protocols {
        let mut frame = datagram(PEER, (1, 1001), &[0; 92]);
        frame[23] = protocol;
        // An echo request; GRE of a protocol that is not looked into.
        frame[34..38].copy_from_slice(&[8, 0, 0x88, 0xb5]);
        for _ in 0..3 {
            ground.send(&frame);
        }
    }
    // ARP, a protocol of its own, and a frame with a length in its place (IEEE 802.3).
    for kind in [0x0806_u16, 0x88b5, 60] {
        let frame = [&[2; 12][..], &kind.to_be_bytes(), &[0; 60]].concat();
        ground.send(&frame);
    }
    let seen = watched.finish();
    let flows = seen.flows();
    let told = flows.iter().map(|flow| {
        let number = flow.ip_protocol.map(u16::from).or(flow.ether_type);
        let sums = (flow.packets_sent.0, flow.wire_bytes_sent.0);
        (flow.protocol, number, sums)
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    let (thrice, once) = ((3, 3 * 134), (1, 74));
    let mut expected = vec![
        (Protocol::Icmp, None, thrice),
        (Protocol::Arp, None, once),
        // A length says that the kind follows.
        (Protocol::Ethernet, Some(0), once),
        (Protocol::Ethernet, Some(0x88b5), once),
    ];
    // What an authentication header says is behind it, here 8, is what counts.
    let numbers = [2, 8, 47, 50, 89, 132, 253];
    expected.extend(numbers.map(|number| (Protocol::Ip, Some(number), thrice)));
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn tags_hide_nothing() {
    let Some(ground) = Ground::new("tags") else {
        return;
    };
    let watched = ground.watch();
    let (inner, outer) = ([0x81, 0, 0, 42], [0x88, 0xa8, 0, 7]);
    ground.send(&tagged(&datagram(PEER, (1, 1001), &[0; 100]), &[inner]));
    ground.send(&tagged(
        &datagram(PEER, (1, 1002), &[0; 100]),
        &[outer, inner],
    ));
    ground.send(&tagged(
        &datagram(PEER, (1, 1003), &[0; 100]),
        &[inner, inner],
    ));
    let seen = watched.finish();
    for (port, vlan, wire) in [(1001, 42, 146), (1002, 7, 150), (1003, 42, 150)] {
        let flow = seen.to_port(port);
        assert_eq!(
            (flow.vlan, flow.wire_bytes_sent.0),
            (Some(vlan), wire),
            "{port}"
        );
        assert_eq!(flow.bytes_sent.0, 100);
    }
}

#[test]
fn a_frame_as_large_as_offloads_make_them_is_counted_whole() {
    let Some(ground) = Ground::new("large") else {
        return;
    };
    let watched = ground.watch();
    ground.send(&segment(PEER, (40_000, 443), 999, "S", &[]));
    // As much as the length in an IPv4 header can say.
    const MOST: u64 = 65_535 - 40;
    let mut payload = hello("large.example", 10);
    let hello_len = payload.len() as u64;
    payload.resize(MOST as usize, 23);
    ground.send(&segment(PEER, (40_000, 443), 1000, "PA", &payload));
    let seen = watched.finish();
    let flow = seen.to_port(443);
    assert_eq!(flow.bytes_sent.0, MOST);
    assert_eq!(flow.wire_bytes_sent.0, 54 + 54 + MOST);
    assert_eq!(flow.dst_host, "large.example");
    assert!(flow.max_call_bytes.0 >= MOST - hello_len);
}

#[test]
fn a_long_chain_of_headers_is_followed_or_told() {
    let Some(ground) = Ground::new("chain") else {
        return;
    };
    let watched = ground.watch();
    let udp = [0, 1, 3, 0xe9, 0, 12, 0, 0, 1, 2, 3, 4];
    for (count, port) in [(1, 1), (8, 2), (60, 3), (600, 4)] {
        // Destination options of 8 bytes each: a pad of 4.
        let mut chain = Vec::new();
        for number in 0..count {
            let next = if number + 1 < count { 60 } else { 17 };
            chain.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        let payload = [&chain[..], &udp].concat();
        let mut frame = vec![
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0,
        ];
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([60, 64]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, port]);
        frame.extend(payload);
        ground.send(&frame);
    }
    let seen = watched.finish();
    let flows = seen.flows();
    assert_eq!(flows.len(), 4);
    for flow in flows {
        let cut = flow.dst_ip == Some([0xfd00, 0, 0, 0, 0, 0, 0, 0x104].into());
        let what = (flow.protocol, flow.dst_port, flow.bytes_sent.0);
        if cut {
            // What is captured of a frame, 4,096 bytes, ends within its headers.
            let rest = 4812 - (4096 - 54) / 8 * 8;
            assert_eq!(what, (Protocol::Ip, None, rest), "{flow:#?}");
        } else {
            assert_eq!(what, (Protocol::Udp, Some(1001), 4), "{flow:#?}");
        }
        let told = flow.findings.iter().any(|it| it == "truncated_header");
        assert_eq!(told, cut, "{flow:#?}");
    }
}

#[test]
fn a_scan_is_counted_to_the_last_frame_in_few_records() {
    let Some(ground) = Ground::new("scan") else {
        return;
    };
    let mut watched = ground.watch_with(
        "tap0",
        None,
        &FlowConfig {
            max_flows: 4096,
            open_burst: 2000,
            ..FlowConfig::default()
        },
    );
    let mut frame = segment(PEER, (40_000, 1), 999, "S", &[]);
    let count = 1_000_000_u32;
    for number in 0..count {
        frame[32] = (number >> 16) as u8;
        frame[36..38].copy_from_slice(&(number as u16).to_be_bytes());
        ground.send(&frame);
        if number % 512 == 0 {
            watched.read();
        }
    }
    let seen = watched.finish();
    let records = seen.payloads().len();
    assert!(records < 20_000, "{records}");
    let folded = |flow: &&sandtrace_event::Flow| flow.aggregate.as_ref().map_or(1, |it| it.flows.0);
    let conversations: u64 = seen.flows().iter().map(folded).sum();
    assert_eq!(conversations, u64::from(count));
    // A few hundred bytes for each would be more.
    let peak = peak_kib();
    assert!(peak < 200_000, "{peak} KiB");
}

/// The most memory that this process had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn two_watches_at_once_hear_their_own_interface_alone() {
    let Some(mut ground) = Ground::new("two") else {
        return;
    };
    ground.add_tap("tap1");
    let watched = [0, 1].map(|index| {
        let config = FlowConfig {
            numbering: Numbering::of(index, 2),
            ..FlowConfig::default()
        };
        ground.watch_with(["tap0", "tap1"][index], None, &config)
    });
    for round in 0..500 {
        ground.send_into(0, &datagram(PEER, (1, 1000), &[0; 10]));
        ground.send_into(1, &datagram(PEER, (1, 2000 + round % 7), &[0; 10]));
    }
    let [first, second] = watched.map(|watched| watched.finish());
    assert_eq!(first.flows().len(), 1);
    assert_eq!(first.to_port(1000).packets_sent.0, 500);
    assert!(
        second
            .flows()
            .iter()
            .all(|flow| flow.dst_port != Some(1000))
    );
    assert_eq!(second.flows().len(), 7);
    assert_eq!(first.to_port(1000).interface.as_deref(), Some("tap0"));
    assert_eq!(second.flows()[0].interface.as_deref(), Some("tap1"));
}

#[test]
fn evidence_files_hold_every_frame() {
    let Some(ground) = Ground::new("evidence") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut watched = ground.watch_with("tap0", Some(directory.path()), &FlowConfig::default());
    for round in 0..300_u16 {
        ground.send(&datagram(PEER, (1, 1000 + round % 3), &[7; 900]));
        if round % 50 == 0 {
            watched.drain();
        }
    }
    ground.send(&tagged(
        &datagram(PEER, (1, 1001), &[0; 100]),
        &[[0x81, 0, 0, 42]],
    ));
    // Of a service, and one as large as offloads make them.
    let service = tagged(&datagram(PEER, (1, 1009), &[0; 100]), &[[0x88, 0xa8, 0, 7]]);
    ground.send(&service);
    let large = segment(PEER, (1, 1010), 1000, "PA", &[7; 64_000]);
    ground.send(&large);
    let seen = watched.finish();
    let files = || {
        seen.payloads().iter().filter_map(|payload| match payload {
            Payload::EvidenceFile(file) => Some(file),
            _ => None,
        })
    };
    assert!(files().count() >= 2, "one is closed at 100,000 bytes");
    assert_eq!(files().map(|file| file.frames.0).sum::<u64>(), 303);
    for frame in [&service, &large] {
        let holds = files().any(|file| {
            let bytes = std::fs::read(directory.path().join(&file.file)).unwrap();
            memchr::memmem::find(&bytes, frame).is_some()
        });
        assert!(holds, "{:x?}", &frame[..18]);
    }
}

#[test]
fn evidence_gives_back_the_frames_that_a_conversation_counted() {
    let Some(ground) = Ground::new("extract") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut watched = ground.watch_with("tap0", Some(directory.path()), &FlowConfig::default());
    let plain = datagram(PEER, (1, 1000), &[7; 900]);
    let ping = |kind: u8| {
        let mut frame = datagram(PEER, (0, 0), &[0; 8]);
        (frame[23], frame[34]) = (1, kind);
        frame
    };
    let pieces = fragments(&datagram(PEER, (1, 1000), &[1; 96]), 40, 9);
    let lone = fragments(&datagram(PEER, (1, 1002), &[1; 96]), 40, 10);
    ground.send(&fragments(&datagram(PEER, (1, 1003), &[1; 96]), 40, 11)[0]);
    for round in 0..60 {
        ground.send(&plain);
        for inner in [8, 9] {
            let tags = [[0x88, 0xa8, 0, 7], [0x81, 0, 0, inner]];
            ground.send(&tagged(&plain, &tags));
        }
        ground.send(&ping(if round % 3 == 0 { 8 } else { 13 }));
        for piece in [&pieces, &lone].map(|pieces| pieces.get(round / 20)) {
            ground.send(piece.filter(|_| round % 20 == 0).unwrap_or(&plain));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    watched.drain();
    let seen = watched.finish();
    let evidence = seen.payloads().iter().filter_map(|payload| match payload {
        Payload::EvidenceFile(file) => Some(directory.path().join(&file.file)),
        _ => None,
    });
    let evidence: Vec<_> = evidence.map(|path| std::fs::read(path).unwrap()).collect();
    let flows = seen.flows();
    assert_eq!(flows.len(), 7, "{flows:?}");
    for flow in flows {
        let counted = flow.packets_sent.0;
        let mut search = Search::new(flow, false);
        for file in &evidence {
            search.look(&file[..]).unwrap();
        }
        let mut selection = search.end().unwrap();
        let mut out = PcapNgWriter::new(Vec::new(), "tap0").unwrap();
        let files = evidence.iter();
        let copied = files.map(|file| selection.copy(&file[..], &mut out).unwrap());
        assert_eq!(copied.sum::<u64>(), counted, "{flow:?}");
    }
}

#[test]
fn conversations_with_the_host_itself_are_told() {
    let Some(ground) = Ground::new("host") else {
        return;
    };
    let watched = ground.watch();
    ground.send(&datagram(PEER, (1, 1001), b"out"));
    ground.send(&datagram(OTHER_RESOLVER, (1, 1002), b"to the host"));
    ground.send(&datagram([10, 9, 0, 77], (1, 1003), b"to a neighbour"));
    let seen = watched.finish();
    assert!(seen.to_port(1001).findings.is_empty());
    let host = &seen.to_port(1002).findings;
    assert_eq!(host, &["private_address", "host_address"]);
    assert_eq!(seen.to_port(1003).findings, ["private_address"]);
}

#[test]
fn an_address_that_the_host_gets_and_loses_while_it_watches_is_known() {
    const LATER: [u8; 4] = [203, 0, 113, 9];
    let Some(ground) = Ground::new("later") else {
        return;
    };
    let mut watched = ground.watch();
    let mut send = |port| {
        ground.send(&datagram(LATER, (1, port), b"whose is it?"));
        watched.drain();
        // Addresses are looked at once a second.
        std::thread::sleep(Duration::from_millis(1100));
    };
    send(1001);
    ground.ip(&["addr", "add", "203.0.113.9/32", "dev", "tap0"]);
    send(1002);
    send(1003);
    ground.ip(&["addr", "del", "203.0.113.9/32", "dev", "tap0"]);
    send(1004);
    let seen = watched.finish();
    let told = [1001, 1002, 1003, 1004].map(|port| !seen.to_port(port).findings.is_empty());
    assert_eq!(told, [false, true, true, false]);
    assert_eq!(seen.to_port(1002).findings, ["host_address"]);
}

/// The kernel drops a frame that ends within its tag before anybody can
/// capture it, and the interface has counted it.
#[test]
fn what_nobody_could_capture_is_told_while_the_watch_goes_on() {
    let Some(ground) = Ground::new("runts") else {
        return;
    };
    let mut watched = ground.watch();
    let runt = [&[2; 12][..], &[0x81, 0, 0]].concat();
    for _ in 0..3 {
        ground.send(&runt);
    }
    ground.send(&datagram(PEER, (1, 1001), b"and one that is captured"));
    for _ in 0..50 {
        watched.read();
        watched.tick();
        std::thread::sleep(Duration::from_millis(100));
    }
    for payloads in watched.payloads() {
        let gaps: Vec<_> = gaps(payloads).collect();
        let [gap] = gaps[..] else {
            panic!("{gaps:#?}");
        };
        assert_eq!((gap.cause, gap.count.0), (GapCause::CounterMismatch, 3));
    }
    ground.send(&runt);
    for seen in watched.finish_short() {
        let untold = gaps(seen.payloads()).nth(1).unwrap();
        assert_eq!(
            (untold.cause, untold.count.0),
            (GapCause::CounterMismatch, 1)
        );
        assert_eq!(gaps(seen.payloads()).count(), 2);
    }
}

/// Frames that come all the time stand for lost ones only for a moment.
#[test]
fn what_nobody_could_capture_is_told_while_the_interface_is_busy() {
    let Some(ground) = Ground::new("busy") else {
        return;
    };
    const LOST: u64 = 400;
    let mut watched = ground.watch();
    let runt = [&[2; 12][..], &[0x81, 0, 0]].concat();
    let frame = datagram(PEER, (1, 1001), b"one of many");
    let begun = std::time::Instant::now();
    // A frame a millisecond, without a pause.
    for number in 0_u64.. {
        if number < LOST {
            ground.send(&runt);
        }
        ground.send(&frame);
        watched.read();
        watched.tick();
        std::thread::sleep(Duration::from_micros(900));
        if begun.elapsed() > Duration::from_secs(6) {
            break;
        }
    }
    for payloads in watched.payloads() {
        let told: u64 = gaps(payloads).map(|gap| gap.count.0).sum();
        assert!((LOST - 150..=LOST).contains(&told), "{told}");
    }
    for seen in watched.finish_short() {
        let gaps: Vec<_> = gaps(seen.payloads()).collect();
        assert_eq!(gaps.iter().map(|gap| gap.count.0).sum::<u64>(), LOST);
        let causes = gaps.iter().map(|gap| gap.cause);
        assert!(causes.into_iter().all(|it| it == GapCause::CounterMismatch));
    }
}

fn gaps(payloads: &[Payload]) -> impl Iterator<Item = &CaptureGap> {
    payloads.iter().filter_map(|payload| match payload {
        Payload::CaptureGap(gap) => Some(gap),
        _ => None,
    })
}
