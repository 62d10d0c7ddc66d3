//! Writes pcapng (draft-ietf-opsawg-pcapng), as far as frames of one Ethernet
//! interface need it.

use sandtrace_wire::Direction;
use std::io::{self, Write};

/// One frame to write.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceFrame<'a> {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub wall_ns: u64,
    /// Which way it went; absent where that is not known.
    pub direction: Option<Direction>,
    /// From the Ethernet header on, as far as it was captured.
    pub bytes: &'a [u8],
    /// Length of the whole frame.
    pub wire_len: u32,
    /// EtherType and control information of a VLAN tag that is not in the bytes.
    pub vlan: Option<(u16, u16)>,
}

/// Writes the blocks of one file.
#[derive(Debug)]
pub struct PcapNgWriter<W: Write> {
    out: W,
    written: u64,
    block: Vec<u8>,
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u16 = 1;

const OPT_END: u16 = 0;
const SHB_USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IF_DROP: u16 = 5;

impl<W: Write> PcapNgWriter<W> {
    /// Begins a file with one interface.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, interface: &str) -> io::Result<Self> {
        let mut writer = Self {
            out,
            written: 0,
            block: Vec::with_capacity(2048),
        };
        writer.begin(SECTION_HEADER);
        writer.push(&0x1a2b_3c4d_u32.to_le_bytes());
        writer.push(&1_u16.to_le_bytes());
        writer.push(&0_u16.to_le_bytes());
        // The section's length is not known yet.
        writer.push(&u64::MAX.to_le_bytes());
        writer.option(SHB_USER_APPLICATION, b"sandtrace");
        writer.end()?;
        writer.begin(INTERFACE_DESCRIPTION);
        writer.push(&LINKTYPE_ETHERNET.to_le_bytes());
        writer.push(&0_u16.to_le_bytes());
        writer.push(&0_u32.to_le_bytes());
        writer.option(IF_NAME, interface.as_bytes());
        // Nanoseconds.
        writer.option(IF_TSRESOL, &[9]);
        writer.end()?;
        Ok(writer)
    }

    /// Writes one frame, with its VLAN tag back in its place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn frame(&mut self, frame: &EvidenceFrame<'_>) -> io::Result<()> {
        let tag = frame
            .vlan
            .map(|(kind, tci)| [kind.to_be_bytes(), tci.to_be_bytes()].concat());
        let (macs, rest) = frame
            .bytes
            .split_at_checked(12)
            .unwrap_or((frame.bytes, &[]));
        let tag = tag.as_deref().unwrap_or_default();
        let captured = length(macs.len() + tag.len() + rest.len());
        self.begin(ENHANCED_PACKET);
        self.push(&0_u32.to_le_bytes());
        let [low, high] = halves(frame.wall_ns);
        self.push(&high.to_le_bytes());
        self.push(&low.to_le_bytes());
        self.push(&captured.to_le_bytes());
        self.push(&frame.wire_len.max(captured).to_le_bytes());
        self.push(macs);
        self.push(tag);
        self.push(rest);
        self.pad();
        if let Some(direction) = frame.direction {
            // As the host's interface sees it: what the guest sends comes in.
            let flags: u32 = match direction {
                Direction::FromSandbox => 1,
                Direction::ToSandbox => 2,
            };
            self.option(EPB_FLAGS, &flags.to_le_bytes());
        }
        self.end()
    }

    /// Says how many frames were dropped, and ends the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, wall_ns: u64, dropped: u64) -> io::Result<W> {
        self.begin(INTERFACE_STATISTICS);
        self.push(&0_u32.to_le_bytes());
        let [low, high] = halves(wall_ns);
        self.push(&high.to_le_bytes());
        self.push(&low.to_le_bytes());
        self.option(ISB_IF_DROP, &dropped.to_le_bytes());
        self.end()?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Hands on what is held back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Bytes written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.push(&kind.to_le_bytes());
        // Room for the length.
        self.push(&[0; 4]);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        while !self.block.len().is_multiple_of(4) {
            self.block.push(0);
        }
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let Ok(len) = u16::try_from(value.len()) else {
            return;
        };
        self.push(&code.to_le_bytes());
        self.push(&len.to_le_bytes());
        self.push(value);
        self.pad();
    }

    fn end(&mut self) -> io::Result<()> {
        self.push(&OPT_END.to_le_bytes());
        self.push(&0_u16.to_le_bytes());
        let total = length(self.block.len() + 4).to_le_bytes();
        if let Some(place) = self.block.get_mut(4..8) {
            place.copy_from_slice(&total);
        }
        self.push(&total);
        self.out.write_all(&self.block)?;
        self.written += u64::from(length(self.block.len()));
        Ok(())
    }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The low and the high half.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}
