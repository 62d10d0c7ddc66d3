//! Published traffic of every kind, written into a tap by a guest: both captures
//! must say the same of it, and count every byte.

use crate::tap::Ground;
use sandtrace_capture::network::FrameReader;
use sandtrace_event::Flow;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The captures, or nothing where they are absent and need not be there.
fn captures(test: &str) -> Vec<PathBuf> {
    let root = std::env::var_os("SANDTRACE_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    let folders = ["zeek/traces", "ja4/pcap"].map(|folder| root.join(folder));
    if !folders.iter().all(|folder| folder.is_dir()) {
        assert!(std::env::var_os("CI").is_none(), "no corpora in {root:?}");
        println!("skipped: {test}: no corpora in {}", root.display());
        return Vec::new();
    }
    let mut found: Vec<_> = folders.iter().flat_map(|folder| files(folder)).collect();
    found.sort();
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    };
    paths.flat_map(below).collect()
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
