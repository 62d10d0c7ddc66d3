//! One conversation out of a file with many.

use super::file::{FileError, FrameReader};
use super::pcapng::{EvidenceFrame, PcapNgWriter};
use sandtrace_event::Flow;
use sandtrace_wire::{Direction, Endpoint, FrameEnds, Protocol};
use std::io::{self, BufRead, Write};

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    protocol: Protocol,
    sandbox: Endpoint,
    peer: Endpoint,
    vlan: Option<u16>,
    from_ns: u64,
    to_ns: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Frames of the conversation.
    pub frames: u64,
    /// Frames in the file.
    pub of: u64,
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

/// The boot clock, from which durations are, and the wall clock, from which
/// frames have their times, drift apart a little.
const SLACK_NS: u64 = 2_000_000;

impl Wanted {
    /// The conversation of a record: between these ends, from its first packet
    /// to its last as far as the record knows.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        let duration_ns = flow.duration_us.0.saturating_mul(1000);
        Self {
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
            from_ns: flow.started_at.0.saturating_sub(SLACK_NS),
            to_ns: flow
                .started_at
                .0
                .saturating_add(duration_ns)
                .saturating_add(SLACK_NS),
        }
    }

    /// Whether a frame belongs to it, and which way it then went. Fragments
    /// bear no ports: all between the two addresses are taken.
    fn holds(&self, ends: &FrameEnds, wall_ns: u64) -> Option<Direction> {
        let in_time = (self.from_ns..=self.to_ns).contains(&wall_ns);
        let same = |a: Endpoint, b: Endpoint| {
            a.ip == b.ip && (ends.is_fragment || b.port.is_none() || a.port == b.port)
        };
        if !in_time || ends.protocol != self.protocol || ends.vlan != self.vlan {
            return None;
        }
        if same(ends.from, self.sandbox) && same(ends.to, self.peer) {
            Some(Direction::FromSandbox)
        } else if same(ends.from, self.peer) && same(ends.to, self.sandbox) {
            Some(Direction::ToSandbox)
        } else {
            None
        }
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

/// Copies the frames of a conversation from a capture file.
///
/// # Errors
/// When the file is damaged, or the copy cannot be written.
pub fn extract<W: Write>(
    source: impl BufRead,
    wanted: &Wanted,
    out: &mut PcapNgWriter<W>,
) -> Result<Extracted, ExtractError> {
    let mut reader = FrameReader::new(source)?;
    let mut found = Extracted::default();
    while let Some(frame) = reader.next()? {
        found.of += 1;
        let ends = FrameEnds::of(frame.bytes, frame.wire_len);
        let Some(direction) = wanted.holds(&ends, frame.wall_ns) else {
            continue;
        };
        found.frames += 1;
        out.frame(&EvidenceFrame {
            wall_ns: frame.wall_ns,
            direction: Some(direction),
            bytes: frame.bytes,
            wire_len: frame.wire_len,
            vlan: None,
        })
        .map_err(ExtractError::Write)?;
    }
    Ok(found)
}
