//! Frames out of a capture file: pcap and pcapng.

mod fields;
mod link;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;
mod window;

use link::Link;
use pcap::Pcap;
use pcapng::PcapNg;
use sandtrace_wire::Direction;
use std::io::{self, Read};
use std::ops::Range;
use window::Window;

/// Why a capture file cannot be read, or cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not begin as a capture does.
    #[error("it is neither pcap nor pcapng")]
    NotACapture,
    /// The end of the file comes before the end of a packet.
    #[error("it is cut short after {frames} frames")]
    Cut {
        /// Frames before that.
        frames: u64,
    },
    /// A header or block is not what its format says.
    #[error("it is damaged after {frames} frames: {detail}")]
    Damaged {
        /// Frames before that.
        frames: u64,
        /// What is wrong.
        detail: &'static str,
    },
    /// Its frames begin with a header that nothing here reads.
    #[error("its link type is {0}; only Ethernet, raw IP, loopback, PPP and Linux cooked are read")]
    LinkType(u32),
    /// The system could not read it.
    #[error(transparent)]
    Read(io::Error),
}

/// One frame of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileFrame<'a> {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub wall_ns: u64,
    /// From the Ethernet header on, which is made up where the file has none.
    pub bytes: &'a [u8],
    /// Length of the whole frame.
    pub wire_len: u32,
    /// Which way it went, where the file is of our own writing and says so. What others
    /// call inbound depends on whether they were on the sandbox's side.
    pub direction: Option<Direction>,
}

/// Reads the frames of one file in their order, in bounded memory.
pub struct FrameReader<R> {
    window: Window<R>,
    format: Format,
    frames: u64,
    /// A frame whose Ethernet header is made up.
    made: Vec<u8>,
}

enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// A frame as the file has it, at a place of the window.
struct Found {
    at: Range<usize>,
    link: Link,
    wall_ns: u64,
    wire_len: u32,
    direction: Option<Direction>,
}

/// Why there is no next frame.
#[derive(Debug)]
enum Stop {
    Cut,
    Damaged(&'static str),
    LinkType(u32),
    Read(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Bytes of a frame or block that are read; nothing that is longer was captured.
const MAX_LEN: usize = 16 << 20;

impl<R: Read> FrameReader<R> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// When it is no capture, or one of an unknown kind.
    pub fn new(source: R) -> Result<Self, FileError> {
        let mut window = Window::new(source);
        let format = Format::open(&mut window)
            .map_err(|stop| stop.after(0))?
            .ok_or(FileError::NotACapture)?;
        Ok(Self {
            window,
            format,
            frames: 0,
            made: Vec::new(),
        })
    }

    /// Frames that are not in the file, as it says itself.
    pub(super) fn drops(&self) -> u64 {
        match &self.format {
            Format::Pcap(_) => 0,
            Format::PcapNg(pcapng) => pcapng.drops.sum(),
        }
    }

    /// Frames that are in the file and were passed over, and why.
    pub(super) fn unread(&self) -> (u64, String) {
        let unread = match &self.format {
            Format::Pcap(_) => pcapng::Unread::default(),
            Format::PcapNg(pcapng) => pcapng.unread,
        };
        let why = unread.link_type.map_or_else(
            || "longer than any frame that is read".to_owned(),
            |number| format!("of interfaces whose link type is not read, as {number}"),
        );
        (unread.frames, why)
    }

    /// Frames read so far.
    pub(super) const fn count(&self) -> u64 {
        self.frames
    }

    /// The next frame; `None` at the end of the file.
    ///
    /// # Errors
    /// When the file ends within a frame or is damaged.
    #[expect(
        clippy::should_implement_trait,
        reason = "a frame is borrowed from the reader"
    )]
    pub fn next(&mut self) -> Result<Option<FileFrame<'_>>, FileError> {
        let found = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.window),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.window),
        };
        let Some(found) = found.map_err(|stop| stop.after(self.frames))? else {
            return Ok(None);
        };
        self.frames += 1;
        let data = self.window.get(found.at);
        let (bytes, wire_len) = found
            .link
            .make_ethernet(data, found.wire_len, &mut self.made);
        Ok(Some(FileFrame {
            wall_ns: found.wall_ns,
            bytes,
            wire_len,
            direction: found.direction,
        }))
    }
}

impl Format {
    fn open(window: &mut Window<impl Read>) -> Result<Option<Self>, Stop> {
        Ok(if window.holds(4)? && window.front(4) == pcapng::SECTION {
            PcapNg::open(window)?.map(Self::PcapNg)
        } else {
            Pcap::open(window)?.map(Self::Pcap)
        })
    }
}

impl Stop {
    fn after(self, frames: u64) -> FileError {
        match self {
            Self::Cut => FileError::Cut { frames },
            Self::Damaged(detail) => FileError::Damaged { frames, detail },
            Self::LinkType(number) => FileError::LinkType(number),
            Self::Read(error) => FileError::Read(error),
        }
    }
}
