//! Reads captures, and keeps what a table says of them.

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, TsResolution};
use sandtrace_wire::{
    Bounds, Direction, DnsTransaction, End, FlowConfig, FlowSink, FlowTable, FlowView, Moment,
    Packet, Phase, Protocol, Totals, WireCount,
};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The corpora, or nothing where they are absent and need not be there.
pub(crate) fn corpus(test: &str, folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SANDTRACE_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no corpora at {}",
        path.display()
    );
    println!("skipped: {test}: no corpora");
    None
}

/// Every file below a folder, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// One frame of a capture.
pub(crate) struct Frame {
    pub(crate) at: Duration,
    pub(crate) bytes: Vec<u8>,
    pub(crate) wire_len: u32,
}

/// The frames of a capture file, `pcap` or `pcapng`, compressed or not.
/// A file that ends in the middle of a frame ends before it.
pub(crate) fn frames(path: &Path) -> Vec<Frame> {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut plain)
            .unwrap();
        bytes = plain;
    }
    if bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        pcapng(&bytes)
    } else {
        pcap(&bytes)
    }
}

fn pcap(bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut reader = PcapReader::new(bytes).unwrap();
    let link = reader.header().datalink;
    let nanoseconds = reader.header().ts_resolution == TsResolution::NanoSecond;
    // Raw, as the checked form refuses packets that were cut at the snap length.
    while let Some(Ok(packet)) = reader.next_raw_packet() {
        let fraction = u64::from(packet.ts_frac);
        let fraction = if nanoseconds {
            Duration::from_nanos(fraction)
        } else {
            Duration::from_micros(fraction)
        };
        found.push(Frame {
            at: Duration::from_secs(packet.ts_sec.into()) + fraction,
            ..ethernet(link, &packet.data, packet.orig_len)
        });
    }
    found
}

/// The frame with an Ethernet header in place of a loopback header or none.
fn ethernet(link: DataLink, bytes: &[u8], wire_len: u32) -> Frame {
    let (header, new) = match link {
        DataLink::NULL => (4, true),
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => (0, true),
        _ => (0, false),
    };
    let packet = bytes.get(header..).unwrap_or_default();
    let mut frame = Vec::new();
    if new {
        let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        frame.extend([0; 12]);
        frame.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    }
    let added = u32::try_from(frame.len()).unwrap();
    frame.extend(packet);
    Frame {
        at: Duration::ZERO,
        bytes: frame,
        wire_len: wire_len + added - u32::try_from(header).unwrap(),
    }
}

fn pcapng(bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut reader = PcapNgReader::new(bytes).unwrap();
    // Nanoseconds per tick of each interface; the reader takes all ticks for nanoseconds.
    let mut ticks = Vec::new();
    while let Some(Ok(block)) = reader.next_block() {
        match block {
            Block::InterfaceDescription(interface) => {
                let resolution = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfTsResol(digits) => Some(u32::from(*digits)),
                    _ => None,
                });
                ticks.push(10_u32.pow(9 - resolution.unwrap_or(6)));
            }
            Block::EnhancedPacket(packet) => found.push(Frame {
                at: packet.timestamp * ticks[packet.interface_id as usize],
                bytes: packet.data.to_vec(),
                wire_len: packet.original_len,
            }),
            _ => {}
        }
    }
    found
}

/// What a close report says, as far as the corpora tell.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) protocol: Protocol,
    pub(crate) community_id: Option<String>,
    pub(crate) sni: Option<String>,
    pub(crate) sent: WireCount,
    pub(crate) received: WireCount,
    pub(crate) end: Option<End>,
}

#[derive(Default)]
struct Sink {
    opened: usize,
    closed: Vec<Closed>,
}

impl FlowSink for Sink {
    fn flow(&mut self, phase: Phase, _at: Moment, flow: &FlowView<'_>) -> Bounds {
        let wire = |traffic: sandtrace_wire::Traffic| WireCount {
            packets: traffic.packets,
            wire_bytes: traffic.wire_bytes,
        };
        match phase {
            Phase::Open => self.opened += 1,
            Phase::Update => {}
            Phase::Close => self.closed.push(Closed {
                protocol: flow.protocol,
                community_id: flow.community_id.clone(),
                sni: flow.tls.and_then(|tls| tls.sni.clone()),
                sent: wire(flow.sent),
                received: wire(flow.received),
                end: flow.end,
            }),
        }
        Bounds::default()
    }

    fn dns(&mut self, _at: Moment, _query: &DnsTransaction) {}
}

/// Runs frames through a table. The side of each pair of addresses that
/// speaks first is taken for the sandbox.
pub(crate) fn run(frames: &[Frame], config: FlowConfig) -> (Vec<Closed>, Totals) {
    let mut table = FlowTable::new(config);
    let mut sink = Sink::default();
    let mut sandboxes = HashMap::new();
    let mut now = Moment::default();
    for frame in frames {
        let mono_us = u64::try_from(frame.at.as_micros()).unwrap();
        now = Moment {
            mono_us: mono_us.max(now.mono_us),
            wall_ns: u64::try_from(frame.at.as_nanos()).unwrap(),
        };
        table.tick(now, &mut sink);
        let packet = Packet {
            at: now,
            direction: direction(&mut sandboxes, &frame.bytes),
            bytes: &frame.bytes,
            wire_len: frame.wire_len,
            vlan: None,
        };
        table.packet(&packet, &mut sink);
    }
    table.finish(now, &mut sink);
    assert_eq!(sink.opened, sink.closed.len(), "each flow opens and closes");
    (sink.closed, table.totals())
}

type Pair = (Vec<u8>, Vec<u8>);

fn direction(sandboxes: &mut HashMap<Pair, Vec<u8>>, frame: &[u8]) -> Direction {
    let len = match frame.get(12..14) {
        Some([0x08, 0x00]) => 4,
        Some([0x86, 0xdd]) => 16,
        _ => return Direction::FromSandbox,
    };
    let start = if len == 4 { 26 } else { 22 };
    let (Some(from), Some(to)) = (
        frame.get(start..start + len),
        frame.get(start + len..start + 2 * len),
    ) else {
        return Direction::FromSandbox;
    };
    let pair = (from.min(to).to_vec(), from.max(to).to_vec());
    let sandbox = sandboxes.entry(pair).or_insert_with(|| from.to_vec());
    if sandbox == from {
        Direction::FromSandbox
    } else {
        Direction::ToSandbox
    }
}
