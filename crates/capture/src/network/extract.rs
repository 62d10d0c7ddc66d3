//! One conversation out of files with many.

use super::file::{FileError, FileFrame, FrameReader};
use super::file_clock::FileClock;
use super::pcapng::{EvidenceFrame, PcapNgWriter};
use sandtrace_event::Flow;
use sandtrace_wire::{
    Bounds, Direction, DnsTransaction, Endpoint, FlowConfig, FlowSink, FlowTable, FlowView, Found,
    Moment, Orientation, Packet, Phase, Protocol, Wanted,
};
use std::io::{self, BufRead, Write};
use std::net::IpAddr;

/// Finds a conversation's frames: those that a flow table like the watch's
/// counts in it. So fragments, tags and idle times part conversations as they
/// did when its record was made.
pub struct Search {
    table: FlowTable,
    ways: Orientation,
    clock: FileClock,
    sandbox: Vec<IpAddr>,
}

/// The frames of a conversation, to be taken out of the files they were found in.
pub struct Selection {
    found: Found,
    ways: Orientation,
    frames: u64,
}

/// Why a conversation cannot be taken out of a file.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was found cannot be written.
    #[error("write the extract: {0}")]
    Write(#[source] io::Error),
}

/// Wants no reports.
struct Nobody;

impl FlowSink for Nobody {
    fn flow(&mut self, _phase: Phase, _at: Moment, _flow: &FlowView<'_>) -> Bounds {
        Bounds::default()
    }

    fn dns(&mut self, _at: Moment, _query: &DnsTransaction) {}
}

impl Search {
    /// For the conversation of a record, its last where there are several. It is known
    /// by its first frame; `lacks_first`: by its ends and its time, where that is lost.
    #[must_use]
    pub fn new(flow: &Flow, lacks_first: bool) -> Self {
        // Between its ends these tell the way of every frame.
        let sandbox: Vec<_> = flow.src_ip.into_iter().collect();
        Self {
            table: FlowTable::searching(FlowConfig::default(), wanted(flow, lacks_first)),
            ways: Orientation::new(sandbox.clone()),
            clock: FileClock::default(),
            sandbox,
        }
    }

    /// Looks through a file. All files of a session are to be handed in, in
    /// their order.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn look(&mut self, source: impl BufRead) -> Result<(), FileError> {
        let mut reader = FrameReader::new(source)?;
        while let Some(frame) = reader.next()? {
            let at = self.clock.at(frame.wall_ns);
            if self.table.due_us().is_some_and(|due| due <= at.mono_us) {
                self.table.tick(at, &mut Nobody);
            }
            let packet = packet(&frame, at, &mut self.ways);
            self.table.packet(&packet, &mut Nobody);
        }
        Ok(())
    }

    /// What was found, if anything was.
    #[must_use]
    pub fn end(mut self) -> Option<Selection> {
        self.table.finish(self.clock.now(), &mut Nobody);
        Some(Selection {
            found: self.table.found()?,
            ways: Orientation::new(self.sandbox),
            frames: 0,
        })
    }
}

impl Selection {
    /// Copies the frames that were found in this file. The same files are to be
    /// handed in, in the same order. Answers how many were copied.
    ///
    /// # Errors
    /// When the file is damaged, or the copy cannot be written.
    pub fn copy<W: Write>(
        &mut self,
        source: impl BufRead,
        out: &mut PcapNgWriter<W>,
    ) -> Result<u64, ExtractError> {
        let mut reader = FrameReader::new(source)?;
        let mut copied = 0;
        while let Some(frame) = reader.next()? {
            let direction = packet(&frame, Moment::default(), &mut self.ways).direction;
            let number = self.frames;
            self.frames += 1;
            if !self.found.contains(number) {
                continue;
            }
            copied += 1;
            out.frame(&EvidenceFrame {
                wall_ns: frame.wall_ns,
                direction: Some(direction),
                bytes: frame.bytes,
                wire_len: frame.wire_len,
                vlan: None,
            })
            .map_err(ExtractError::Write)?;
        }
        Ok(copied)
    }
}

fn packet<'a>(frame: &FileFrame<'a>, at: Moment, ways: &mut Orientation) -> Packet<'a> {
    let packet = Packet {
        at,
        direction: Direction::FromSandbox,
        bytes: frame.bytes,
        wire_len: frame.wire_len,
        vlan: None,
    };
    let direction = frame.direction.unwrap_or_else(|| ways.direction(&packet));
    Packet {
        direction,
        ..packet
    }
}

fn wanted(flow: &Flow, lacks_first: bool) -> Wanted {
    let duration_ns = flow.duration_us.0.saturating_mul(1000);
    Wanted {
        protocol: protocol(flow),
        sandbox: Endpoint {
            ip: flow.src_ip,
            port: flow.src_port,
        },
        peer: Endpoint {
            ip: flow.dst_ip,
            port: flow.dst_port,
        },
        vlan: flow.vlan,
        icmp_type: flow.icmp_type,
        first_ns: flow.started_at.0,
        last_ns: flow.started_at.0.saturating_add(duration_ns),
        lacks_first,
    }
}

fn protocol(flow: &Flow) -> Protocol {
    use sandtrace_event::Protocol as Named;
    match flow.protocol {
        Named::Tcp => Protocol::Tcp,
        Named::Udp => Protocol::Udp,
        Named::Icmp => Protocol::Icmp,
        Named::Icmpv6 => Protocol::Icmpv6,
        Named::Arp => Protocol::Arp,
        Named::Ip => Protocol::Ip(flow.ip_protocol.unwrap_or(u8::MAX)),
        Named::Ethernet => Protocol::Ethernet(flow.ether_type.unwrap_or(0)),
    }
}
