//! A sandbox and its servers choose names, paths, certificates and answers. No
//! record that they fill may be too long for a line of a trail: it would become
//! a gap, and what it said would be lost.

use crate::frames::{datagram, segment, vec16};
use crate::tap::{GUEST, RESOLVER};
use proptest::collection::vec;
use proptest::prelude::*;
use sandtrace_capture::Observer;
use sandtrace_capture::network::{EvidenceFrame, PcapNgWriter, Progress, Replay, ReplayConfig};
use sandtrace_event::{EvidenceTier, Limits, Observation, Payload};
use sandtrace_wire::FlowConfig;

const PEER: [u8; 4] = [198, 51, 100, 7];
/// A line has at most 65,535 bytes (docs/trail-format.md); what is around a
/// payload, its verdict's reason included, has room in the rest.
const MAX_PAYLOAD: usize = 65_535 - 8 * 1024;

/// What a sandbox does, all with one peer.
#[derive(Clone, Debug)]
enum Deed {
    /// Asks for a name of labels; the answer gives it the peer's address, over
    /// others, with texts.
    Ask(Vec<Vec<u8>>, Vec<Vec<u8>>, usize),
    Hello(Vec<u8>, Vec<Vec<u8>>),
    Request(Vec<u8>, Vec<u8>),
}

/// Up to so many of one byte: of those that take four, six, two or one in a record.
fn run(lengths: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0xff_u8), Just(b'\\'), Just(b'"'), Just(1), Just(b'a')];
    (byte, lengths).prop_map(|(byte, length)| vec![byte; length])
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (
            vec(run(1..=63), 1..=3),
            vec(run(0..=255), 0..40),
            0..300_usize
        )
            .prop_map(|(name, texts, records)| Deed::Ask(name, texts, records)),
        (run(0..=4000), vec(run(0..=255), 0..40))
            .prop_map(|(name, protocols)| Deed::Hello(name, protocols)),
        (run(0..=30_000), run(0..=4000)).prop_map(|(path, host)| Deed::Request(path, host)),
    ]
}

fn vec8(body: &[u8]) -> Vec<u8> {
    [&[body.len() as u8], body].concat()
}

/// The question and its answer.
fn ask(labels: &[Vec<u8>], texts: &[Vec<u8>], records: usize) -> [Vec<u8>; 2] {
    let name = [labels.iter().flat_map(|it| vec8(it)).collect(), vec![0]].concat();
    let message = |flags: [u8; 2], answers: usize, records: &[u8]| {
        let count = (answers as u16).to_be_bytes();
        [
            &[0, 9][..],
            &flags,
            &[0, 1],
            &count,
            &[0; 4],
            &name,
            &[0, 1, 0, 1],
            records,
        ]
        .concat()
    };
    let record = |kind: u8, data: &[u8]| {
        [&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60][..], &vec16(data)].concat()
    };
    let mut all: Vec<_> = texts.iter().map(|text| record(16, &vec8(text))).collect();
    // Each name server's name is that of the question again.
    all.extend((0..records).map(|_| record(2, &[0xc0, 12])));
    all.push(record(1, &PEER));
    let answer = message([0x81, 0x80], all.len(), &all.concat());
    [message([1, 0], 0, &[]), answer]
}

fn hello(name: &[u8], protocols: &[Vec<u8>]) -> Vec<u8> {
    let named = vec16(&[&[0], &vec16(name)[..]].concat());
    let offered: Vec<u8> = protocols.iter().flat_map(|it| vec8(it)).collect();
    let extensions = [
        &[0, 0][..],
        &vec16(&named),
        &[0, 16],
        &vec16(&vec16(&offered)),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &vec16(&extensions),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    let records = message.chunks(16_000);
    records
        .flat_map(|part| [&[22, 3, 1], &vec16(part)[..]].concat())
        .collect()
}

/// The frames of a deed; the sandbox's and, of an answer, its resolver's.
fn frames(number: u16, deed: &Deed) -> Vec<Vec<u8>> {
    let ports = (20_000 + number, 443);
    let stream = match deed {
        Deed::Ask(labels, texts, records) => {
            let [question, answer] = ask(labels, texts, *records);
            let question = datagram(RESOLVER, (ports.0, 53), &question);
            let mut answer = datagram(RESOLVER, (ports.0, 53), &answer);
            // The other way round: addresses of both layers, and ports.
            answer[..12].rotate_left(6);
            answer[26..34].rotate_left(4);
            answer[34..38].rotate_left(2);
            return vec![question, answer];
        }
        Deed::Hello(name, protocols) => hello(name, protocols),
        Deed::Request(path, host) => [
            b"GET /",
            &path[..],
            b" HTTP/1.1\r\nHost: ",
            host,
            b"\r\n\r\n",
        ]
        .concat(),
    };
    let mut frames = vec![segment(PEER, ports, 999, "S", &[])];
    for (index, part) in stream.chunks(1400).enumerate() {
        frames.push(segment(PEER, ports, 1000 + 1400 * index as u32, "PA", part));
    }
    frames
}

/// Panics at a record that is too long.
struct Measuring(usize);

impl Observer for Measuring {
    fn observe(&mut self, observation: Observation) -> Limits {
        let payload: &Payload = &observation.payload;
        let json = serde_json::to_string(payload).unwrap();
        assert!(
            json.len() <= MAX_PAYLOAD,
            "{} bytes: {json:.2000}",
            json.len()
        );
        self.0 = self.0.max(json.len());
        Limits::default()
    }
}

/// Records of all deeds, one after the other; the longest one's length.
fn longest(deeds: &[Deed]) -> usize {
    let mut file = PcapNgWriter::new(Vec::new(), "tap0").unwrap();
    let deeds = (0..)
        .zip(deeds)
        .flat_map(|(number, deed)| frames(number, deed));
    for (index, bytes) in deeds.enumerate() {
        let frame = EvidenceFrame {
            wall_ns: 1_700_000_000_000_000_000 + index as u64 * 1_000_000,
            direction: None,
            bytes: &bytes,
            wire_len: bytes.len() as u32,
            vlan: None,
        };
        file.frame(&frame).unwrap();
    }
    let file = file.finish(0, 0).unwrap();
    let config = ReplayConfig {
        name: "hostile".to_owned(),
        flows: FlowConfig {
            accepted_resolvers: vec![RESOLVER.into()],
            sandbox_addresses: vec![GUEST.into()],
            ..FlowConfig::default()
        },
        tier: EvidenceTier::Hypervisor,
    };
    let mut observer = Measuring(0);
    let mut replay = Replay::open(&file[..], config).unwrap();
    while replay.read(1000, &mut observer).unwrap() == Progress::More {}
    replay.finish(None, &mut observer);
    observer.0
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(32)
    })]
    #[test]
    fn every_record_that_a_sandbox_fills_fits_a_line(deeds in vec(deed(), 1..40)) {
        longest(&deeds);
    }
}

/// As much of everything as there can be: the test above would see what is unbounded.
#[test]
fn the_fullest_records_are_long_and_fit() {
    #[track_caller]
    fn check(byte: u8) {
        let names = (0..40_u8).map(|number| {
            let label = [&[number], &[byte; 62][..]].concat();
            let labels = vec![label, vec![byte; 63], vec![byte; 63]];
            Deed::Ask(labels, vec![vec![byte; 255]; 40], 200)
        });
        let claims = [
            Deed::Hello(vec![byte; 4000], vec![vec![byte; 255]; 40]),
            Deed::Request(vec![byte; 30_000], vec![byte; 4000]),
        ];
        let longest = longest(&names.chain(claims).collect::<Vec<_>>());
        assert!(longest > 25_000, "{byte}: {longest}");
    }
    check(0xff);
    check(b'"');
    check(b'\\');
    check(1);
}
