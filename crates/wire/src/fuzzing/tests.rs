//! Every fuzz target for a moment, on bytes by chance and on frames that others
//! captured, with some of their bytes changed. `cargo xtask fuzz` goes on from here.

use super::*;
use pcap_file::pcap::PcapReader;
use proptest::prelude::*;
use std::path::Path;

const TARGETS: [fn(&[u8]); 7] = [frame, dns, tls_hello, quic, http, reassembly, flow_table];

proptest! {
    #[test]
    fn no_bytes_break_a_reader(bytes: Vec<u8>) {
        for target in TARGETS {
            target(&bytes);
        }
    }
}

/// Frames of published captures, some of each; nothing where there are none.
fn captured() -> Vec<Vec<u8>> {
    let root = std::env::var_os("SANDTRACE_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        Into::into,
    );
    let mut frames = Vec::new();
    for folder in ["zeek/traces", "ja4/pcap"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
            assert!(std::env::var_os("CI").is_none(), "no corpora in {root:?}");
            continue;
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            let Ok(mut reader) = PcapReader::new(std::fs::File::open(path).unwrap()) else {
                continue;
            };
            for _ in 0..20 {
                let Some(Ok(packet)) = reader.next_raw_packet() else {
                    break;
                };
                frames.push(packet.data.into_owned());
            }
        }
    }
    frames
}

/// SplitMix64: the same changes every time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    /// Some bytes become others, or the end is gone.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(8) {
            let place = self.below(bytes.len());
            if let Some(byte) = bytes.get_mut(place) {
                *byte = self.next() as u8;
            }
        }
        if self.below(8) == 0 {
            bytes.truncate(self.below(bytes.len()));
        }
    }
}

#[test]
fn no_changed_capture_breaks_a_reader() {
    const ROUNDS: u64 = 20_000;
    let frames = captured();
    if frames.is_empty() {
        println!("skipped: no_changed_capture_breaks_a_reader: no corpora");
        return;
    }
    for round in 0..ROUNDS {
        // Where it ends in a panic, this round is run again by its number.
        let mut chance = Chance(round);
        let mut bytes = frames[chance.below(frames.len())].clone();
        chance.change(&mut bytes);
        frame(&bytes);
        for headers in [42, 54, 66] {
            let payload = bytes.get(headers..).unwrap_or_default();
            dns(payload);
            http(payload);
            tls_hello(&[&[chance.next() as u8], payload].concat());
            let piece = [&(payload.len() as u16).to_le_bytes(), payload].concat();
            quic(&piece);
            reassembly(&[&piece[..], &piece].concat());
        }
        if round % 16 == 0 {
            let begin = chance.below(frames.len());
            let mut conversation = Vec::new();
            for original in frames[begin..].iter().take(40) {
                let mut piece =
                    [&[chance.next() as u8, chance.next() as u8], &original[..]].concat();
                chance.change(&mut piece);
                conversation.extend((piece.len() as u16).to_le_bytes());
                conversation.extend(piece);
            }
            flow_table(&conversation);
        }
    }
}
