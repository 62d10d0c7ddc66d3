//! Published traffic of every kind, written into a tap by a guest: both captures
//! must say the same of it, and count every byte.

use crate::published::{corpus, files};
use crate::tap::Ground;
use sandtrace_capture::network::FrameReader;
use sandtrace_event::Flow;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

fn captures(test: &str) -> Vec<PathBuf> {
    let folders = ["zeek/traces", "ja4/pcap"];
    let folders = folders.iter().filter_map(|folder| corpus(test, folder));
    folders.flat_map(|folder| files(&folder)).collect()
}

/// Its Ethernet frames, as far as they are whole and a tap takes them.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    if let Ok(mut reader) = FrameReader::new(File::open(path).unwrap()) {
        while let Ok(Some(frame)) = reader.next() {
            found.push(frame.bytes.to_vec());
        }
    }
    // Larger ones come of offloads, for which this tap has no header (offloads.rs).
    found.retain(|frame| (18..=1518).contains(&frame.len()));
    found
}

#[test]
fn both_captures_say_the_same_of_published_traffic() {
    let test = "both_captures_say_the_same_of_published_traffic";
    let (captures, Some(ground)) = (captures(test), Ground::new("published")) else {
        return;
    };
    let mut watched = ground.watch();
    let mut sent = 0;
    for capture in &captures {
        for (number, frame) in frames(capture).iter().enumerate() {
            ground.send(frame);
            sent += 1;
            if number % 64 == 63 {
                watched.read();
            }
        }
        watched.drain_within(std::time::Duration::from_millis(5));
        watched.tick();
    }
    let seen = watched.finish_busy();
    if captures.is_empty() {
        return;
    }
    assert!(sent > 15_000, "{sent}");
    let flows = seen.flows();
    let kinds = |of: fn(&Flow) -> Option<String>| -> BTreeSet<String> {
        flows.iter().filter_map(|flow| of(flow)).collect()
    };
    let protocols = kinds(|flow| Some(format!("{:?} {:?}", flow.protocol, flow.ip_protocol)));
    for protocol in [
        "Tcp None",
        "Udp None",
        "Icmp None",
        "Icmpv6 None",
        "Arp None",
        "Ip Some(41)",
        "Ip Some(47)",
    ] {
        assert!(protocols.contains(protocol), "{protocol}: {protocols:?}");
    }
    let tunnels = kinds(|flow| Some(flow.tunnel.as_ref()?.kind.clone()));
    let quic = kinds(|flow| flow.tls.as_ref()?.quic_version.clone());
    assert_eq!(tunnels.len(), 7, "every kind: {tunnels:?}");
    assert!(quic.contains("1"), "{quic:?}");
}
