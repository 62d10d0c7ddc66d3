//! Reads captures, and keeps what a table says of them.

use sandtrace_capture::network::{FileClock, FileError, FrameReader};
use sandtrace_wire::{
    Bounds, Direction, DnsTransaction, End, FlowConfig, FlowSink, FlowTable, FlowView, Moment,
    Packet, Phase, Protocol, Totals, WireCount,
};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One frame of a capture.
pub(crate) struct Frame {
    pub(crate) at: Moment,
    pub(crate) bytes: Vec<u8>,
    pub(crate) wire_len: u32,
}

/// The frames of a capture file, compressed or not. A file that ends in the middle of a
/// frame ends before it, and one of a link type that is not read has none.
pub(crate) fn frames(path: &Path) -> Vec<Frame> {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut plain)
            .unwrap();
        bytes = plain;
    }
    let mut found = Vec::new();
    let mut clock = FileClock::default();
    let mut reader = match FrameReader::new(&bytes[..]) {
        Ok(reader) => reader,
        Err(FileError::LinkType(_)) => return found,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    loop {
        match reader.next() {
            Ok(Some(frame)) => found.push(Frame {
                at: clock.at(frame.wall_ns),
                bytes: frame.bytes.to_vec(),
                wire_len: frame.wire_len,
            }),
            Ok(None) | Err(FileError::Cut { .. }) => return found,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// What a close report says, as far as the corpora tell.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) protocol: Protocol,
    pub(crate) community_id: Option<String>,
    pub(crate) sni: Option<String>,
    pub(crate) ja4: Option<String>,
    pub(crate) sent: WireCount,
    pub(crate) received: WireCount,
    pub(crate) end: Option<End>,
    /// It is inside a tunnel, so its bytes are in another flow too.
    pub(crate) tunnelled: bool,
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
                ja4: flow.tls.and_then(|tls| tls.ja4.clone()),
                sent: wire(flow.sent),
                received: wire(flow.received),
                end: flow.end,
                tunnelled: flow.tunnel.is_some(),
            }),
        }
        Bounds::default()
    }

    fn dns(&mut self, _at: Moment, _query: &DnsTransaction) {}
}

/// Runs frames through a table. The client of each connection is taken for the
/// sandbox: who sent the SYN or, in mid-stream, who has the higher port.
pub(crate) fn run(frames: &[Frame], config: FlowConfig) -> (Vec<Closed>, Totals) {
    let mut table = FlowTable::new(config);
    let mut sink = Sink::default();
    let mut sandboxes = HashMap::new();
    let mut now = Moment::default();
    for frame in frames {
        now = frame.at;
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

/// Captures of the Zeek corpus with one of their expected logs, as its index
/// pairs them.
pub(crate) fn zeek_logs(folder: &Path, log: &str) -> Vec<(PathBuf, PathBuf)> {
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let pairs = index.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [capture, _, _, test, _, logs] = fields[..] else {
            return None;
        };
        let name = Path::new(capture).file_name()?;
        let path = folder.join("expected").join(name).join(test).join(log);
        let is_listed = logs.split(',').any(|it| it == log);
        is_listed.then(|| (folder.join(capture), path))
    });
    pairs.collect()
}

type Pair = (Vec<u8>, Vec<u8>);

fn direction(sandboxes: &mut HashMap<Pair, Vec<u8>>, frame: &[u8]) -> Direction {
    let Some(Ends { from, to, tcp }) = ends(frame) else {
        return Direction::FromSandbox;
    };
    let by_client = match tcp {
        Some(segment) if segment.syn => !segment.ack,
        Some(segment) => segment.ports.0 >= segment.ports.1,
        None => true,
    };
    let client = if by_client { from.clone() } else { to.clone() };
    let pair = (from.clone().min(to.clone()), from.clone().max(to));
    let sandbox = sandboxes.entry(pair).or_insert(client);
    if *sandbox == from {
        Direction::FromSandbox
    } else {
        Direction::ToSandbox
    }
}

/// Source and destination of an IP frame: address, and port where there is one.
struct Ends {
    from: Vec<u8>,
    to: Vec<u8>,
    tcp: Option<Segment>,
}

struct Segment {
    ports: (u16, u16),
    syn: bool,
    ack: bool,
}

fn ends(frame: &[u8]) -> Option<Ends> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let ip = frame.get(at + 2..)?;
    let (protocol, addresses, len, header) = match frame.get(at..at + 2)? {
        [0x08, 0x00] => (*ip.get(9)?, 12, 4, usize::from(ip.first()? & 15) * 4),
        [0x86, 0xdd] => (*ip.get(6)?, 8, 16, 40),
        _ => return None,
    };
    let mut ends = Ends {
        from: ip.get(addresses..addresses + len)?.to_vec(),
        to: ip.get(addresses + len..addresses + 2 * len)?.to_vec(),
        tcp: None,
    };
    if let (6 | 17, Some(&[a, b, c, d])) = (protocol, ip.get(header..header + 4)) {
        ends.from.extend([a, b]);
        ends.to.extend([c, d]);
        ends.tcp = ip
            .get(header + 13)
            .filter(|_| protocol == 6)
            .map(|flags| Segment {
                ports: (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
                syn: flags & 0x02 != 0,
                ack: flags & 0x10 != 0,
            });
    }
    Some(ends)
}
